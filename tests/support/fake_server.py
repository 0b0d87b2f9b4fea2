"""The real service around an engine that only pretends: ``python -m tests.support.fake_server``.

The engine is told what to do by variables that the service does not know:

    FAKE_ENGINE_DELAY       seconds that it takes for a chunk
    FAKE_ENGINE_OPEN_DELAY  seconds that it takes to load
    FAKE_ENGINE_ECHO        when set, words are of its audio: no other chunk has the same
    FAKE_ENGINE_LOG         a file to which it appends what it did, a word in a line

and by the prompt of a request, which is a number of seconds that replaces FAKE_ENGINE_DELAY.
"""

import asyncio
import os
import zlib
from pathlib import Path

from asr.service import serve
from asr.settings import Settings
from asr.types import Hypothesis, Word

WORDS_PER_SECOND = 2


class FakeEngine:
    """Hears word0, word1, ... at two a second, whatever is said."""

    name = "fake engine 1.0"
    model = "fake"
    language = "en"
    slots = 4
    guarded = False

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
    """Runs in the spawned worker, which imports this module by its name."""
    return FakeEngine(os.environ)


if __name__ == "__main__":
    # `__main__` has another name in the worker; the module itself has not.
    from tests.support.fake_server import make_engine as importable

    serve(Settings.from_env(), importable)
