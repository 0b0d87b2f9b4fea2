"""The real service with a fake engine: ``python -m tests.support.fake_server``.

Environment variables that the service ignores control the engine:

    FAKE_ENGINE_DELAY       seconds per chunk
    FAKE_ENGINE_OPEN_DELAY  seconds that loading takes
    FAKE_ENGINE_ECHO        when set, each word contains a checksum of the chunk's samples
    FAKE_ENGINE_LOG         a file to which it appends what it does, one word per line

The prompt of a request, if any, is a number of seconds that replaces FAKE_ENGINE_DELAY.
"""

import asyncio
import os
import zlib
from pathlib import Path

from asr.engines.base import Engine
from asr.service import serve
from asr.settings import Settings
from asr.types import Hypothesis, Word

WORDS_PER_SECOND = 2


class FakeEngine(Engine):
    """Returns word0, word1, ... at two words per second of audio, whatever the audio is."""

    name = "fake engine 1.0"
    model = "fake"
    language = "en"
    slots = 4

    def __init__(self, env):
        self.delay = float(env.get("FAKE_ENGINE_DELAY", 0))
        self.open_delay = float(env.get("FAKE_ENGINE_OPEN_DELAY", 0))
        self.echoes = bool(env.get("FAKE_ENGINE_ECHO"))
        self.log = Path(env.get("FAKE_ENGINE_LOG", os.devnull))

    def check(self, options):
        return ("the fake engine ignores language",) if options.language else ()

    async def open(self):
        await asyncio.sleep(self.open_delay)
        self._say("opened")

    async def transcribe(self, chunk, audio, options):
        self._say("began")
        try:
            await asyncio.sleep(self.delay if options.prompt is None else float(options.prompt))
        except asyncio.CancelledError:
            self._say("cancelled")
            raise
        stem = f"{zlib.crc32(audio.samples.tobytes()):08x}-" if self.echoes else "word"
        words = tuple(
            Word(f"{stem}{i}", i / WORDS_PER_SECOND, (i + 1) / WORDS_PER_SECOND, 0.9)
            for i in range(int(audio.duration * WORDS_PER_SECOND))
        )
        self._say("finished")
        return Hypothesis(chunk.index, " ".join(word.text for word in words), words)

    async def close(self):
        self._say("closed")

    def _say(self, what):
        with self.log.open("a") as file:
            file.write(what + "\n")


def make_engine(settings):
    """Called in the spawned worker, which imports this module by its name."""
    return FakeEngine(os.environ)


if __name__ == "__main__":
    # In the worker `__main__` has another name, so take the function from the module by its name.
    from tests.support.fake_server import make_engine as importable

    serve(Settings.from_env(), importable)
