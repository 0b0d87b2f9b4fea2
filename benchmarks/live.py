"""Measure the delay of partial results and the WER of live sessions, in real time.

    python -m benchmarks.live MANIFEST [--sessions 1 4] [--delay medium] [--only CATEGORY]
    python -m benchmarks.live MANIFEST --joined 0.2    # one long clip, with pauses of 0.2 s

The service runs in its own processes with the settings of the environment (ASR_ENGINE and so on).
All clips of the manifest are played one after another, each in a new session and followed by
`SILENCE_SECONDS` of silence. Pieces of 0.1 s are sent when a microphone would deliver them. With
--sessions N, this happens N times in parallel, and each of the N begins with another clip.

The *delay* of a word is the time from its end to the arrival of the delta that contains it. The
aligner gives the ends, in the transcript of the same clip from the file route. Words that are not
in both transcripts do not count. Words that arrived only with the final transcript count, too.

An item is taken back if its deltas, concatenated, are not its transcript. The WER compares the
final texts with the references of the manifest: through the file route, live without partial
results (as fast as possible), and live with them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import soundfile
import soxr
from websockets.asyncio.client import connect

from asr.evaluation.manifest import read_manifest
from asr.evaluation.scores import WordScore, score_words
from asr.pcm import to_bytes, to_int16
from asr.service.live.word_match import match_prefix
from asr.text.bare import bare
from asr.types import SAMPLE_RATE
from benchmarks.measure import family, save
from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from websockets.asyncio.client import ClientConnection

PIECE: Final = SAMPLE_RATE // 10
SILENCE_SECONDS: Final = 1.5
TRANSCRIPTION: Final = "conversation.item.input_audio_transcription"


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip with its reference, and its transcript from the file route as (word, end in s)."""

    name: str
    text: str
    samples: np.ndarray
    words: Sequence[tuple[str, float]] = ()


@dataclass(slots=True)
class Played:
    """What a session received for one clip.

    Attributes:
        deltas: (arrival, text) by item; arrival in seconds since the start of the clip.
        transcripts: by item.
        finals: arrival of `committed` for each item, on the same clock; in the order of the turns.
    """

    deltas: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)
    finals: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The final text."""
        return " ".join(text for item in self.finals if (text := self.transcripts[item]))

    @property
    def n_taken_back(self) -> int:
        """Items whose deltas are not their transcript."""
        return sum(
            "".join(text for _, text in self.deltas.get(item, [])) != transcript
            for item, transcript in self.transcripts.items()
        )

    def arrivals(self) -> list[tuple[str, float, bool]]:
        """Each word with the arrival of its delta, and whether that was before the turn ended."""
        words = []
        for item, ended in self.finals.items():
            for at, text in self.deltas.get(item, []):
                is_early = at < ended
                words += [(word, at, is_early) for word in text.split() if bare(word).isalnum()]
        return words


def load(manifest: Path, only: str | None) -> list[Clip]:
    """The clips at 16 kHz."""
    clips = []
    for it in read_manifest(manifest):
        if only in (None, *it.categories):
            samples, rate = soundfile.read(it.file, dtype="float32", always_2d=True)
            mono = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)
            clips.append(Clip(it.file.stem, it.text, to_int16(mono.astype(np.float32))))
    return clips


def joined(clips: Sequence[Clip], pause: float) -> Clip:
    """All clips concatenated, with a pause of `pause` seconds after each."""
    gap = np.zeros(round(pause * SAMPLE_RATE), np.int16)
    parts = [part for clip in clips for part in (clip.samples, gap)]
    return Clip("joined", " ".join(clip.text for clip in clips), np.concatenate(parts))


def with_words(clip: Clip, url: str) -> Clip:
    """The clip with its transcript from the file route."""
    name = Path(os.environ.get("TMPDIR", "/tmp")) / f"live-{os.getpid()}.wav"
    soundfile.write(name, clip.samples, SAMPLE_RATE)
    with name.open("rb") as file:
        answer = httpx.post(
            f"{url}/v1/audio/transcriptions",
            files={"file": file},
            data={"response_format": "full_json"},
            timeout=600,
        )
    name.unlink()
    segments = answer.raise_for_status().json()["segments"]
    words = [(it["text"], it["end"]) for segment in segments for it in segment["words"]]
    return replace(clip, words=words)


async def play(clip: Clip, url: str, transcription: dict[str, Any], pace: float = 1.0) -> Played:
    """Play one clip into a new session.

    Args:
        clip: the clip.
        url: of the service.
        transcription: settings of the session.
        pace: 0 sends as fast as possible.
    """
    played = Played()
    async with connect(url.replace("http", "ws") + "/v1/realtime", max_size=None) as socket:
        form = {"type": "audio/pcm", "rate": SAMPLE_RATE}
        audio = {"input": {"format": form, "transcription": transcription}}
        session = {"type": "transcription", "audio": audio}
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        started = time.monotonic()
        receiving = asyncio.create_task(_receive(socket, played, started))
        silence = np.zeros(round(SILENCE_SECONDS * SAMPLE_RATE), np.int16)
        samples = np.concatenate((clip.samples, silence))
        for begin in range(0, len(samples), PIECE):
            piece = samples[begin : begin + PIECE]
            due = started + pace * (begin + len(piece)) / SAMPLE_RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            text = base64.b64encode(to_bytes(piece)).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": text}))
        await socket.send('{"type": "input_audio_buffer.commit"}')
        await socket.send('{"type": "input_audio_buffer.clear"}')
        await receiving
    return played


async def _receive(socket: ClientConnection, played: Played, started: float) -> None:
    """Record events until the buffer is cleared and all turns are transcribed."""
    is_cleared, n_open = False, 0
    while not is_cleared or n_open:
        event = json.loads(await socket.recv())
        kind, now = event["type"], time.monotonic() - started
        if kind == f"{TRANSCRIPTION}.delta":
            played.deltas.setdefault(event["item_id"], []).append((now, event["delta"]))
        elif kind == "input_audio_buffer.committed":
            played.finals[event["item_id"]] = now
            n_open += 1
        elif kind in (f"{TRANSCRIPTION}.completed", f"{TRANSCRIPTION}.failed"):
            played.transcripts[event["item_id"]] = event.get("transcript", "")
            n_open -= 1
        is_cleared = is_cleared or kind == "input_audio_buffer.cleared"


async def session(clips: Sequence[Clip], url: str, settings: dict[str, Any]) -> list[Played]:
    """Play clips one after another."""
    return [await play(clip, url, settings) for clip in clips]


async def sessions(
    clips: Sequence[Clip], url: str, n_sessions: int, settings: dict[str, Any]
) -> list[tuple[Clip, Played]]:
    """Play all clips `n_sessions` times in parallel, each time in another order."""
    shift = max(1, len(clips) // n_sessions)
    orders = [[*clips[n * shift :], *clips[: n * shift]] for n in range(n_sessions)]
    found = await asyncio.gather(*(session(order, url, settings) for order in orders))
    return [
        pair
        for order, played in zip(orders, found, strict=True)
        for pair in zip(order, played, strict=True)
    ]


def delays(clip: Clip, played: Played) -> list[tuple[float, bool]]:
    """The delay of each word in both transcripts, and whether it came before the turn ended."""
    words = [(word, end) for word, end in clip.words if bare(word).isalnum()]
    arrivals = played.arrivals()
    match = match_prefix([word for word, *_ in arrivals], [word for word, _ in words])
    return [
        (at - words[j][1], is_early)
        for (word, at, is_early), j in zip(arrivals, match.counterparts, strict=True)
        if j is not None and bare(word) == bare(words[j][0])
    ]


def errors(pairs: Iterable[tuple[str, str]]) -> str:
    """The WER of (reference, text) pairs."""
    total = sum((score_words(*pair) for pair in pairs), WordScore())
    return f"{100 * (total.wer or 0.0):.1f}%"


def cpu_seconds(root: int) -> float:
    """CPU time that the processes of the service and their dead children have used."""
    total = 0
    for pid in family(root):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, stat[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def row(found: Sequence[tuple[Clip, Played]], n_sessions: int, cpu: float) -> dict[str, Any]:
    """The results of one run."""
    measured = [it for clip, played in found for it in delays(clip, played)]
    waits = np.array([wait for wait, _ in measured])
    early = np.array([wait for wait, is_early in measured if is_early])
    seconds = sum(len(clip.samples) / SAMPLE_RATE + SILENCE_SECONDS for clip, _ in found)
    return {
        "sessions": n_sessions,
        "words": len(waits),
        "before the turn ended": f"{100 * len(early) / len(waits):.0f}%",
        "delay median s": round(float(np.median(waits)), 2),
        "delay p95 s": round(float(np.quantile(waits, 0.95)), 2),
        "within 1.5 s": f"{100 * float((waits <= 1.5).mean()):.0f}%",
        "taken back": sum(played.n_taken_back for _, played in found),
        "WER live": errors((clip.text, played.text) for clip, played in found),
        "CPU s per s of a session": round(cpu / seconds, 2),
        "load average": round(os.getloadavg()[0], 1),
    }


def measure(options: argparse.Namespace, url: str, pid: int) -> list[dict[str, Any]]:
    """All runs with one service."""
    clips = load(options.manifest, options.only)
    if options.joined is not None:
        clips = [joined(clips, options.joined)]
    clips = [with_words(clip, url) for clip in clips]
    texts = [(clip.text, " ".join(word for word, _ in clip.words)) for clip in clips]
    whole = [
        asyncio.run(play(clip, url, {"partial_results": False}, pace=0.0)).text for clip in clips
    ]
    rows = []
    for n_sessions in options.sessions:
        settings = {"delay": options.delay}
        before = cpu_seconds(pid)
        found = asyncio.run(sessions(clips, url, n_sessions, settings))
        rows.append(
            {"delay": options.delay}
            | row(found, n_sessions, cpu_seconds(pid) - before)
            | {
                "WER file route": errors(texts),
                "WER without partial results": errors(
                    (clip.text, text) for clip, text in zip(clips, whole, strict=True)
                ),
            }
        )
        if options.texts:
            for clip, played in found:
                print(json.dumps([clip.name, clip.text, played.text], ensure_ascii=False))
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--delay", default="medium", help="OpenAI's setting of the session")
    parser.add_argument("--only", help="a category of clips")
    parser.add_argument(
        "--joined", type=float, help="concatenate the clips, with pauses of this many seconds"
    )
    parser.add_argument("--texts", action="store_true", help="print references and final texts")
    parser.add_argument("--save", default="live", help="name of the file in benchmarks/results")
    options = parser.parse_args()
    with serving(["server.py"], {"ASR_LOG_LEVEL": "warning"}, 120) as (url, pid):
        rows = measure(options, url, pid)
    save(options.save, rows)


if __name__ == "__main__":
    main()
