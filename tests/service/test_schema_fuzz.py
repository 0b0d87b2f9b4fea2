"""Valid and invalid requests that schemathesis generates from the OpenAPI document, in process."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from asr.output.formats import EXTENSIONS
from tests.support.inprocess import serving
from tests.support.serving import HTTP, make_wav, wait_for

ANSWER_SECONDS = 20
RAW = {"content-type": "audio/wav"}


@pytest.fixture(scope="module")
def server():
    with serving(ASR_MAX_UPLOAD_BYTES=str(1 << 20)) as server:
        yield server


@pytest.fixture(scope="module")
def job(server):
    """The id of a finished job, so that some requests name a job that exists."""
    made = HTTP.post(f"{server.url}/v1/jobs", headers=RAW, content=make_wav(1.0)).json()["id"]

    def state():
        return HTTP.get(f"{server.url}/v1/jobs/{made}").json()["state"] == "succeeded"

    wait_for(state, 60, "the end of the job")
    return made


def operations(server):
    document = HTTP.get(f"{server.url}/openapi.json").json()
    import schemathesis  # here, since it costs 0.3 s in each pytest worker

    schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
    found = [
        result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()
    ]
    assert len(found) == sum(len(methods) for methods in document["paths"].values())
    return found


def check(case, server):
    """Send the request; it must be answered in time and without a server error."""
    answer = case.call(base_url=server.url, timeout=ANSWER_SECONDS)
    told_to_wait = answer.status_code == 503 and "retry-after" in answer.headers
    assert answer.status_code < 500 or told_to_wait, answer.text
    if 400 <= answer.status_code < 500 and case.method != "HEAD":
        assert answer.json()["error"]["message"]
    return answer.status_code


def fuzz_one(server, job, operation, n_examples):
    """The set of statuses that an operation answered."""
    from schemathesis import GenerationMode

    modes = [operation.as_strategy(mode) for mode in GenerationMode]
    seen = set()

    @given(st.one_of(modes), st.booleans(), st.sampled_from(sorted(EXTENSIONS)))
    @settings(
        max_examples=n_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case, is_known, extension):
        if is_known and case.method != "DELETE" and "job_id" in case.path_parameters:
            known = {"job_id": job, "extension": extension}
            case.path_parameters |= {name: known[name] for name in case.path_parameters}
        seen.add(check(case, server))

    run()
    return seen


def fuzz(server, job, n_examples):
    """The set of statuses for each operation."""
    return {
        operation.label: fuzz_one(server, job, operation, n_examples)
        for operation in operations(server)
    }


def check_coverage(statuses):
    assert 200 in statuses["GET /v1/jobs"]
    assert 200 in statuses["GET /v1/jobs/{job_id}"]
    assert statuses["POST /v1/audio/transcriptions"] & {400, 404}
    assert 200 in statuses["GET /v1/jobs/{job_id}/transcript.{extension}"]
    assert all(seen for seen in statuses.values())


def test_a_few_requests_of_each_operation(server, job):
    check_coverage(fuzz(server, job, 10))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_requests_of_each_operation(server, job):
    check_coverage(fuzz(server, job, 150))
