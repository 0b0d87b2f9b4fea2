"""pocketsphinx: the embedded recogniser for machines without a GPU. US English, CPU only.

It is much less accurate than Omni: about one word in four is wrong on clear read speech, and more
than half are wrong on spontaneous or telephone speech (README, Results).

Each chunk is decoded in a child process, forked from a template process that has loaded the models.
So every chunk gets a fresh decoder. A reused decoder keeps its noise estimate, and its results then
depend on the order of the chunks. A child can also be killed alone.

Source: CMU Sphinx, https://github.com/cmusphinx/pocketsphinx
"""

from __future__ import annotations

import importlib.metadata
import re
import signal
from typing import TYPE_CHECKING, Any, Final

import pocketsphinx

from asr.config import DecodeOptions, check
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable, WorkerDied
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis, Word
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from asr.workers.template import Channel

# A narrower search than with the defaults. On 81 clips (728 s, 1,481 words) RTFx is 3.13 instead of
# 1.61, on a machine under load. WER is 62.2% instead of 62.0%, a difference that the order of the
# clips can also make.
DECODER_OPTIONS: Final = {"maxhmmpf": 3000, "maxwpf": 10, "loglevel": "FATAL"}
FRAME_SECONDS: Final = 0.01
CPU_SECONDS_BASE: Final = 60
CPU_SECONDS_PER_SECOND: Final = 20
"""The limit on CPU time: seconds for any chunk, plus seconds for each second of its audio. Decoding
needs about 0.3 s of CPU time per second of audio."""

_VARIANT = re.compile(r"\(\d+\)$")


class SphinxEngine:
    """Recognise chunks in child processes, `workers` at once."""

    language = "en"
    model = "pocketsphinx"
    guarded = False  # the same samples always give the same answer, so asking again is useless

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self.name = f"pocketsphinx {importlib.metadata.version('pocketsphinx')} en-us"
        self._pool = ProcessPool(["asr.engines.sphinx:load_template"], workers)

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Accept English only. Prompt, keywords and temperature have no effect: warn."""
        is_english = (options.language or "en").lower().split("-")[0] in ("en", "english")
        check(is_english, "language", "pocketsphinx recognises English only: send en or nothing")
        given = {
            "prompt": options.prompt is not None,
            "keywords": bool(options.keywords),
            "temperature": bool(options.temperature),
        }
        return tuple(f"pocketsphinx ignores {name}" for name, is_set in given.items() if is_set)

    async def open(self) -> None:
        """Load the models."""
        try:
            await self._pool.open()
        except WorkerDied as error:
            raise EngineUnavailable(f"pocketsphinx did not load: {error}") from error

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """Recognise one chunk. The word times come from the decoder."""
        seconds = CPU_SECONDS_BASE + CPU_SECONDS_PER_SECOND * chunk.duration
        limits = ProcessLimits(cpu_seconds=round(seconds))
        try:
            async with self._pool.job(
                "asr.engines.sphinx:recognise_job", {}, audio.pcm16(), limits
            ) as job:
                answer = await job.result()
        except WorkerDied as error:
            message = f"pocketsphinx failed on the chunk at {chunk.start:.1f} s: {error}"
            if error.signal == signal.SIGXCPU:
                raise EngineTimeout(message) from error
            raise EngineFailed(message, chunk.index) from error
        words = tuple(_word(item, chunk.duration) for item in answer["words"])
        text = " ".join(word.text for word in words)
        return Hypothesis(chunk.index, text, words)

    async def close(self) -> None:
        """End the template process and its children."""
        await self._pool.close()


def _word(item: dict[str, Any], duration: float) -> Word:
    end = min(item["end"], duration)
    confidence = min(max(item["confidence"], 0.0), 1.0)
    return Word(item["text"], min(item["start"], end), end, round(confidence, 4), "engine")


# --- in the child -------------------------------------------------------------------------------

_template: pocketsphinx.Decoder | None = None


def load_template() -> None:
    """Load the models once, in the template process."""
    global _template  # every forked child inherits it
    _template = pocketsphinx.Decoder(samprate=SAMPLE_RATE, **DECODER_OPTIONS)


def recognise_job(channel: Channel) -> None:
    """Decode one chunk of PCM16 with the unused decoder of the template process."""
    _, pcm = channel.receive()
    decoder = _template
    if decoder is None:
        raise RuntimeError("the template process did not load the decoder")
    if not pcm.strip(b"\0"):  # it recognises "dog" in digital silence
        channel.send({"words": []})
        return
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    log_math = decoder.get_logmath()
    words = [
        {
            "text": _VARIANT.sub("", segment.word),
            "start": segment.start_frame * FRAME_SECONDS,
            "end": (segment.end_frame + 1) * FRAME_SECONDS,
            "confidence": log_math.exp(segment.prob) if segment.prob <= 0 else float(segment.prob),
        }
        for segment in (decoder.seg() or ())
        if not segment.word.startswith(("<", "[", "+"))
    ]
    channel.send({"words": words})
