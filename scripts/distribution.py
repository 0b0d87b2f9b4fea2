"""Build wheel and sdist into ``dist``, and try them in an empty environment: ``make dist``.

The sdist is built first and the wheel from the sdist, so a file that the sdist lacks is noticed.
The wheel is then installed with its dependencies into a new environment, the model is downloaded,
and the commands run in a folder outside the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLE: Final = ROOT / "samples" / "meeting.wav"
WORD: Final = "office"
"""A word of the sample."""
READY_SECONDS: Final = 180.0
PIP: Final = ["-m", "pip", "--quiet", "--disable-pip-version-check"]


def main() -> None:
    """Build, and try the wheel unless ``--build-only`` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build-only", action="store_true", help="do not try the wheel")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asr-dist-") as name:
        wheel = build(Path(name))
        if not options.build_only:
            try_wheel(wheel, Path(name))
    print("the distribution works" if not options.build_only else "built, but not tried")


def build(folder: Path) -> Path:
    """Build the sdist from the repository and the wheel from the sdist."""
    target = ROOT / "dist"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "build" / "tools")}
    for kind, source in (("sdist", ROOT), ("wheel", folder)):
        if kind == "wheel":
            source = unpacked(newest(target, "*.tar.gz"), folder)
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
        subprocess.run(command, check=True, cwd=source, env=env, stdout=subprocess.DEVNULL)
    for path in (newest(target, "*.tar.gz"), newest(target, "*.whl")):
        print(f"size  {path.name:<40}{path.stat().st_size / 1e6:>6.1f} MB")
    return newest(target, "*.whl")


def unpacked(archive: Path, folder: Path) -> Path:
    """The only folder in an archive."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "sdist", filter="data")
    return next((folder / "sdist").iterdir())


def newest(folder: Path, pattern: str) -> Path:
    """The file that was written last."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def try_wheel(wheel: Path, folder: Path) -> None:
    """Install the wheel into an empty environment and use its commands."""
    begin = time.perf_counter()
    python = environment(folder / "venv")
    locked = ["-r", str(ROOT / "requirements.lock")]
    subprocess.run([python, *PIP, "install", "--require-hashes", *locked], check=True)
    subprocess.run([python, *PIP, "install", "--no-deps", str(wheel)], check=True)
    print(f"time  installation {time.perf_counter() - begin:.1f} s")
    asr = str(Path(python).with_name("asr"))
    run(asr, "models", "install", cwd=folder)
    done = subprocess.run(["du", "-sm", folder / "venv"], check=True, stdout=subprocess.PIPE)
    print(f"size  environment with the model {done.stdout.split()[0].decode()} MB")
    check("asr --version", run(asr, "--version", cwd=folder).split()[1] in wheel.name)
    check("asr schema", "properties" in json.loads(run(asr, "schema", cwd=folder)))
    transcript = run(asr, "transcribe", str(SAMPLE), "--format", "srt", cwd=folder)
    check("asr transcribe", WORD in transcript.lower())
    serves(asr, folder)


def environment(folder: Path) -> str:
    """A new environment with pip and nothing else; its Python."""
    done = subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False)
    if done.returncode:  # a Debian without python3-venv
        tools = str(folder.with_name("virtualenv"))
        subprocess.run(
            [sys.executable, *PIP, "install", "--target", tools, "virtualenv"], check=True
        )
        env = {**os.environ, "PYTHONPATH": tools}
        command = [sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(folder)]
        subprocess.run(command, check=True, env=env)
    return str(folder / "bin" / "python")


def run(*command: str, cwd: Path) -> str:
    """The output of a command that must succeed, without the repository on the path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, check=True, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
    return done.stdout


def serves(asr: str, folder: Path) -> None:
    """The service answers with its pages and transcribes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [asr, "serve", "--port", str(port), "--data-dir", str(folder / "data")]
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=folder, env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, process)
        for path in pages(url):
            check(f"GET {path}", len(get(url + path)) > 0)
        request = urllib.request.Request(
            f"{url}/v1/audio/transcriptions?response_format=text",
            data=SAMPLE.read_bytes(),
            headers={"Content-Type": "audio/wav"},
        )
        check("asr serve transcribes", WORD in get(request).decode().lower())
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    check("asr serve ends with code 0", code == 0)


def pages(url: str) -> list[str]:
    """The pages of the service and every static file that the first one names."""
    html = get(url + "/").decode()
    names = re.findall(r'(?:src|href)="([^":#]+)"', html)
    check("the page names its files", bool(names))
    return ["/", "/docs", "/openapi.json", *("/" + name.lstrip("./") for name in names)]


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the engine is loaded."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            get(f"{url}/ready")
            return
        time.sleep(0.1)
    sys.exit("FAIL  the service did not become ready")


def get(url: str | urllib.request.Request) -> bytes:
    """The body of an answer.

    Raises:
        urllib.error.URLError: no answer, or one that tells of an error.
    """
    with urllib.request.urlopen(url, timeout=300) as answer:
        return bytes(answer.read())


def check(name: str, passed: bool) -> None:
    """Report a check; end the run if it failed."""
    if not passed:
        sys.exit(f"FAIL  {name}")
    print(f"ok    {name}", flush=True)


if __name__ == "__main__":
    main()
