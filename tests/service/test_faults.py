"""Who is at fault, and what clients get: trouble of the server is a 503 with Retry-After."""

import errno
import os
import pickle
import signal

import pytest

from asr import errors
from asr.errors import AsrError, EngineFailed, InvalidOption, WorkerDied, WorkerLost
from asr.pipeline.missing import reason_of
from asr.service import errors as refusals
from asr.service.faults import Fault, chunk_of, errno_of, fault_of, place_of
from asr.service.http.problems import problem_of

OURS = [
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EIO,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOENT,
    errno.ESTALE,
]


@pytest.mark.parametrize("number", OURS, ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", [OSError, WorkerDied], ids=["here", "in a child"])
def test_trouble_of_the_system_is_a_503(number, kind):
    text = os.strerror(number)
    error = OSError(number, text, "/secret") if kind is OSError else WorkerDied(text, errno=number)
    assert fault_of(error) is Fault.SERVER
    problem = problem_of(error)
    assert (problem.status, problem.param) == (503, None)
    assert 1 <= problem.retry_after <= 60
    assert "/secret" not in problem.message
    assert problem.body["error"]["type"] == "server_error"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")], ids=repr)
def test_a_lack_of_memory_or_threads_is_a_503(error):
    assert fault_of(error) is Fault.SERVER
    assert (problem_of(error).status, problem_of(error).code) == (503, "out_of_resources")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_decoder_is_a_503(number):
    error = WorkerDied("killed", signal=number)
    assert fault_of(error) is Fault.SERVER
    assert (problem_of(error).status, problem_of(error).retry_after) == (503, 2)
    error.chunk_index = 3
    assert fault_of(error) is Fault.CHUNK


KINDS = [it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, AsrError)]
KINDS += [it for it in vars(refusals).values() if isinstance(it, type) and it not in KINDS]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_who_is_blamed_agrees_with_the_status(kind):
    """A 4xx blames the request. A job must not fail of an error that is a 503."""
    match kind.__name__:
        case "InvalidOption":
            error = InvalidOption("a", "b")
        case "ShuttingDown" | "AsrError":
            error = kind() if kind is not AsrError else AsrError("a")
        case _ if issubclass(kind, refusals.Refused) and kind is not refusals.Refused:
            error = kind("a", "b")
        case "Refused":
            return  # only its subclasses are raised
        case _:
            error = kind("a")
    status = problem_of(error).status
    if 400 <= status < 500:
        assert fault_of(error) is Fault.RECORDING
    if status == 503:
        assert fault_of(error) is not Fault.RECORDING


CAUSES = [
    OSError(errno.EIO, "disk"), MemoryError(), EOFError(), RuntimeError("can't start new thread"),
    RuntimeError("a bug"), ValueError("a bug"), WorkerDied("full", errno=errno.ENOSPC),
    WorkerDied("killed", signal=signal.SIGKILL), WorkerDied("crashed", signal=signal.SIGSEGV),
    WorkerDied("exited"), WorkerDied("memory", out_of_memory=True), WorkerLost("it died"),
    *(kind("a") for kind in vars(errors).values()
      if isinstance(kind, type) and issubclass(kind, errors.AudioError | errors.EngineError)),
    errors.StoreUnavailable("a"), errors.TooMuchMissing("a"), InvalidOption("a", "b"),
]  # fmt: skip


@pytest.mark.parametrize("error", CAUSES, ids=repr)
def test_the_pipeline_makes_gaps_of_what_is_blamed_on_a_chunk(error):
    vars(error)["chunk_index"] = 3
    is_chunk = fault_of(error) is Fault.CHUNK and not isinstance(error, WorkerLost)
    assert (reason_of(error) is not None) == is_chunk


def test_too_much_missing_blames_the_recording_only_if_it_is_damaged():
    found = [problem_of(errors.TooMuchMissing("60%", is_damaged=it)) for it in (False, True)]
    assert [(it.status, it.code, it.param) for it in found] == [
        (500, "too_much_missing", None),
        (400, "too_much_missing", "file"),
    ]
    assert fault_of(errors.TooMuchMissing("60%")) is Fault.RECORDING


def test_what_is_known_of_an_error_survives_the_queue():
    error = EngineFailed("no", 7)
    assert chunk_of(pickle.loads(pickle.dumps(error))) == 7
    assert place_of(error) == (0, 7)
    error.channel = 1
    assert place_of(pickle.loads(pickle.dumps(error))) == (1, 7)
    lost = pickle.loads(pickle.dumps(WorkerLost("it died")))
    assert (type(lost), chunk_of(lost), errno_of(lost)) == (WorkerLost, None, None)
