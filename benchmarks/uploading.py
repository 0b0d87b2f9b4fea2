"""Time from the last byte of an upload to its transcript, transcribed after or during the upload.

The benchmark starts the real service and sends a recording over tus at a steady rate. The time
starts when the service answers the last part. It ends with the last event of the transcript. The
recordings are concatenated samples. With --delay, a test double replaces the engine and takes that
long for each chunk.

    python -m benchmarks.uploading [--seconds 120] [--upload-seconds 40] [--delay 3] [wav mp3 m4a]
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import httpx
import numpy as np

from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.pcm import to_int16
from asr.types import SAMPLE_RATE
from benchmarks.measure import save
from benchmarks.serving import ROOT, serving

if TYPE_CHECKING:
    from collections.abc import Generator

CODECS = {"wav": "pcm_s16le", "mp3": "libmp3lame", "m4a": "aac", "flac": "flac"}
TUS = {"Tus-Resumable": "1.0.0"}
N_PARTS = 100


def make_recording(path: Path, seconds: float) -> None:
    """Concatenate samples and encode them by the extension of the name."""
    pieces: list[np.ndarray] = []
    names = ("lecture.mp3", "meeting.wav", "pauses.ogg")
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
        for name in names:
            pieces += decode(ROOT / "samples" / name, AudioLimits()).blocks
    samples = np.concatenate(pieces)[: int(seconds * SAMPLE_RATE)]
    pcm = to_int16(samples)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=SAMPLE_RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        for start in range(0, len(pcm), SAMPLE_RATE):
            block = np.ascontiguousarray(pcm[None, start : start + SAMPLE_RATE])
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@contextlib.contextmanager
def service(delay: float | None) -> Generator[httpx.Client]:
    """The real service, with Moonshine or a test double of an engine."""
    command = ["server.py"] if delay is None else ["-m", "tests.support.fake_server"]
    with tempfile.TemporaryDirectory() as folder:
        settings = {"ASR_DATA_DIR": folder, "ASR_LOG_LEVEL": "error"}
        settings["FAKE_ENGINE_DELAY"] = str(delay or 0)
        with serving(command, settings) as (url, _), httpx.Client(base_url=url, timeout=600) as it:
            yield it


class Transcription:
    """A streamed transcription of an upload, followed in a thread."""

    def __init__(self, client: httpx.Client, upload_id: str) -> None:
        self.first_segment = self.end = float("nan")
        self.text = ""
        self._client = client
        self._fields = {"upload_id": upload_id, "stream": "true"}
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        request = self._client.stream("POST", "/v1/audio/transcriptions", data=self._fields)
        with request as answer:
            for line in answer.iter_lines():
                if "transcript.text.segment" in line and self.first_segment != self.first_segment:
                    self.first_segment = time.perf_counter()
                if "transcript.text.done" in line:
                    self.end, self.text = time.perf_counter(), line
                if "error" in line[:15]:
                    raise RuntimeError(line)

    def wait(self) -> None:
        """Wait until the transcription has ended."""
        self._thread.join()


def run(client: httpx.Client, path: Path, upload_seconds: float, *, follow: bool) -> dict[str, Any]:
    """Measure one upload with its transcription."""
    data = path.read_bytes()
    created = client.post("/v1/uploads", headers=TUS | {"Upload-Length": str(len(data))})
    location = created.headers["location"]
    started = time.perf_counter()
    transcription = Transcription(client, Path(location).name) if follow else None
    step = -(-len(data) // N_PARTS)
    for part, offset in enumerate(range(0, len(data), step), start=1):
        time.sleep(max(0.0, started + part * upload_seconds / N_PARTS - time.perf_counter()))
        headers = TUS | {"Upload-Offset": str(offset)}
        headers["Content-Type"] = "application/offset+octet-stream"
        piece = data[offset : offset + step]
        client.patch(location, content=piece, headers=headers).raise_for_status()
    last_byte = time.perf_counter()
    if transcription is None:
        transcription = Transcription(client, Path(location).name)
    transcription.wait()
    client.delete(location, headers=TUS)
    return {
        "format": path.suffix[1:],
        "transcribed": "while uploading" if follow else "after uploading",
        "upload_s": round(last_byte - started, 1),
        "first_segment_after_first_byte_s": round(transcription.first_segment - started, 1),
        "transcript_after_last_byte_s": round(transcription.end - last_byte, 2),
        "characters": len(transcription.text),
    }


def main() -> None:
    """Measure every format both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=["wav", "mp3", "m4a"])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--upload-seconds", type=float, default=40)
    parser.add_argument("--delay", type=float, help="of a test double, in seconds")
    options = parser.parse_args()
    engine = "moonshine" if options.delay is None else f"double, {options.delay:g} s a chunk"
    rows = []
    with tempfile.TemporaryDirectory() as folder, service(options.delay) as client:
        for kind in options.formats:
            path = Path(folder) / f"recording.{kind}"
            make_recording(path, options.seconds)
            for follow in (False, True):
                row = run(client, path, options.upload_seconds, follow=follow)
                rows.append({"engine": engine, "audio_s": options.seconds} | row)
    save("uploading" if options.delay is None else "uploading-delay", rows)


if __name__ == "__main__":
    main()
