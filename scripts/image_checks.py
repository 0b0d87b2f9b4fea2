"""Run an image's file system as a container would, and check it: `scripts/image.py` calls this.

    python scripts/image_checks.py FILES CONFIG

FILES is the mounted image, CONFIG the ``config`` of the image as JSON. bubblewrap mounts FILES
read-only; only /data, /work and /tmp can be written. The command runs as process 1 and as the
image's user, without capabilities.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

SAMPLES: Final = Path(__file__).resolve().parent.parent / "samples"
READY_SECONDS: Final = 180.0
STOP_SECONDS: Final = 30.0
WORD: Final = "office"
"""A word of samples/meeting.wav."""
WRITABLE: Final = ("data", "work", "tmp")


@dataclass(frozen=True)
class Box:
    """Runs commands in the image.

    Attributes:
        files: the image's file system.
        config: the image's configuration.
        volumes: a folder with the folders data, work and tmp.
    """

    files: Path
    config: dict[str, Any]
    volumes: Path

    def start(self, command: list[str], port: int, **options: Any) -> subprocess.Popen[Any]:
        """Start a command as the image's user."""
        uid, gid = self.config["User"].split(":")
        env = [part for line in self.config["Env"] for part in ("--setenv", *line.split("=", 1))]
        binds = [part for name in WRITABLE for part in ("--bind", self.volumes / name, f"/{name}")]
        box = ["bwrap", "--ro-bind", self.files, "/", "--dev", "/dev", "--proc", "/proc", *binds]
        box += ["--perms", "1777", "--tmpfs", "/dev/shm"]
        box += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--clearenv"]
        box += ["--ro-bind", SAMPLES, "/mnt", "--die-with-parent", "--new-session", *env]
        box += ["--setenv", "ASR_PORT", str(port), "--setenv", "ASR_LOG_LEVEL", "warning"]
        box += ["--chdir", self.config["WorkingDir"], "--"]
        box += ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        box += ["--bounding-set=-all", "--inh-caps=-all", *command]
        return subprocess.Popen(box, **options)

    def run(self, command: list[str], port: int = 8000) -> tuple[int, str]:
        """The exit code and the output of a command."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = self.start(command, port, **pipes)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    @contextlib.contextmanager
    def service(self, title: str) -> Generator[tuple[str, int, int]]:
        """The image's own command on a free port, ended by SIGTERM to process 1.

        Yields the URL, the port and the number of the process outside.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        begin = time.perf_counter()
        process = self.start([*self.config["Entrypoint"], *self.config["Cmd"]], port)
        first = child_of(process)
        try:
            wait_ready(f"http://127.0.0.1:{port}", process)
            say("time", title, f"{time.perf_counter() - begin:.1f} s until /ready")
            yield f"http://127.0.0.1:{port}", port, first
            begin = time.perf_counter()
            os.kill(first, signal.SIGTERM)
            code = process.wait(STOP_SECONDS)
            check("SIGTERM ends it with code 0", code == 0, str(code))
            say("time", "SIGTERM", f"{time.perf_counter() - begin:.1f} s until the end")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)  # the end of process 1 ends all in the box
            process.wait()


def main() -> None:
    """Run all checks; the first that fails ends the run with code 1."""
    files, config = Path(sys.argv[1]), json.loads(sys.argv[2])
    check("the image names user and group by number", config["User"] == "10001:10001")
    with tempfile.TemporaryDirectory(prefix="asr-image-") as name:
        box = Box(files, config, Path(name))
        for volume in WRITABLE:
            (box.volumes / volume).mkdir(mode=0o700)
            os.chown(box.volumes / volume, 10001, 10001)
        box.volumes.chmod(0o711)
        confined(box)
        with box.service("first start") as (url, port, process):
            check("the process is the user", user_of(process) == ["10001"] * 4, str(process))
            transcribes(url)
            healthy(box, port)
            shows(url)
        check("compiled functions are kept", any((box.volumes / "data/numba").rglob("*.nbc")))
        with box.service("next start") as (url, _, _):
            transcribes(url)
        commands(box)
    print("the image works")


def confined(box: Box) -> None:
    """Nothing but the three folders can be written, even by the owner's user."""
    script = "id -u; for f in / /app /etc /app/bin /opt; do touch $f/x 2>/dev/null && echo $f; done"
    code, output = box.run(["sh", "-c", f"{script}; touch /data/x /work/x /tmp/x && rm /data/x"])
    check("only /data, /work and /tmp can be written", code == 0 and output == "10001\n", output)
    code, output = box.run(["find", "/app", "-writable", "!", "-type", "l"])
    check("no file of /app can be changed", output == "", output[:300])


def transcribes(url: str) -> None:
    """A sample becomes text with word times."""
    begin = time.perf_counter()
    answer = post(f"{url}/v1/audio/transcriptions?response_format=full_json")
    words = [word for segment in answer["segments"] for word in segment["words"]]
    texts = " ".join(word["text"] for word in words).lower()
    aligned = sum(word["timing"] == "aligned" for word in words)
    check("the sample is transcribed", WORD in texts, texts)
    check("most words are aligned", aligned > len(words) / 2, f"{aligned} of {len(words)}")
    say("time", "meeting.wav", f"{time.perf_counter() - begin:.1f} s")


def healthy(box: Box, port: int) -> None:
    """The health check of the image passes, and fails where nothing listens."""
    command = box.config["Healthcheck"]["Test"]
    check("the health check is a command", command[0] == "CMD", str(command))
    code, output = box.run(command[1:], port)
    check("the health check passes", code == 0, output)
    code, _ = box.run(command[1:], 1)
    check("the health check fails without the service", code != 0)


def shows(url: str) -> None:
    """The page, the API's pages, clips and spectrograms are there."""
    for path in ("/", "/docs", "/openapi.json", "/ready", "/metrics"):
        check(f"GET {path}", len(get(url + path)) > 0)
    job = post(f"{url}/v1/jobs?keep_recording=true")
    address = f"{url}/v1/jobs/{job['id']}"
    deadline = time.monotonic() + READY_SECONDS
    while json.loads(get(address))["state"] not in {"succeeded", "failed"}:
        check("the job ends", time.monotonic() < deadline, quiet=True)
        time.sleep(0.2)
    picture = get(f"{address}/spectrogram.png?start=0&end=5&width=400&height=96")
    check("a spectrogram", picture.startswith(b"\x89PNG"))
    clip = get(f"{address}/audio?start=0&end=2&format=ogg")
    check("a clip", clip.startswith(b"OggS"), repr(clip[:4]))


def commands(box: Box) -> None:
    """The commands of the package work without the service."""
    code, output = box.run(["asr", "transcribe", "/mnt/meeting.wav", "--format", "srt"])
    check("asr transcribe", code == 0 and WORD in output.lower(), output[-500:])
    code, output = box.run(["asr", "doctor"])
    check("asr doctor", code == 0, output)
    code, output = box.run(["python", "-c", "import opentelemetry.sdk, psycopg, pip"])
    check("the extras are there, and no pip", "No module named 'pip'" in output, output)


def wait_ready(url: str, process: subprocess.Popen[Any]) -> None:
    """Wait until the engine is loaded."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        check("the service runs", process.poll() is None, quiet=True)
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            get(f"{url}/ready")
            return
        time.sleep(0.1)
    check("the service becomes ready", passed=False)


def child_of(process: subprocess.Popen[Any]) -> int:
    """The only child of bubblewrap: process 1 of the box."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (children := path.read_text(encoding="utf-8").split()):
        check("bubblewrap starts", process.poll() is None, quiet=True)
        time.sleep(0.01)
    return int(children[0])


def user_of(pid: int) -> list[str]:
    """The four user ids of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))


def get(url: str) -> bytes:
    """The body of an answer.

    Raises:
        urllib.error.URLError: no answer, or one that tells of an error.
    """
    with urllib.request.urlopen(url, timeout=120) as answer:
        return bytes(answer.read())


def post(url: str) -> dict[str, Any]:
    """Send the sample as a raw body."""
    body = (SAMPLES / "meeting.wav").read_bytes()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "audio/wav"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        told: dict[str, Any] = json.loads(answer.read())
        return told


def check(name: str, passed: bool, detail: str = "", *, quiet: bool = False) -> None:
    """Report a check; end the run if it failed."""
    if not passed:
        sys.exit(f"FAIL  {name}: {detail}")
    if not quiet:
        say("ok", name)


def say(kind: str, name: str, value: str = "") -> None:
    """Print one line of the report."""
    print(f"{kind:<6}{name:<14}{value}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
