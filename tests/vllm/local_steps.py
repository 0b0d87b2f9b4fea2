"""Run the in-process engine step by step with real vLLM and print the results as JSON.

    python -m tests.vllm.local_steps FOLDER

This is a script because vLLM spawns processes, which import the main module again.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from asr.config import DecodeOptions
from asr.engines.omni import local as vllm_local
from asr.engines.omni.instruction import Question
from asr.engines.omni.local import VllmLocalEngine
from asr.engines.omni.watchdog import descendants
from asr.errors import EngineUnavailable, InvalidOption
from asr.types import Chunk
from tests.vllm.servers import BATCH, ENGINE_ARGUMENTS, engine_core
from tests.vllm.sounds import sound

OPTIONS = DecodeOptions()


async def hear(engine, seed=0, seconds=2.0):
    audio = sound(seconds, seed)
    return await engine.transcribe(Chunk(seed, 0, len(audio.samples)), audio, OPTIONS)


def unfinished(engine):
    return engine._loaded._llm.output_processor.get_num_unfinished_requests()


async def refused_arguments(folder):
    engine = VllmLocalEngine(folder, {"no_such_argument": 1})
    try:
        await engine.open()
    except InvalidOption as error:
        return f"{error.name}: {error}"
    finally:
        await engine.close()


async def prompt_ids(engine):
    """The token ids of the whole prompt, as vLLM returns them."""
    loaded = engine._loaded
    audio = sound(1.0)
    given = {
        "prompt": loaded.prompt(Question(is_placed=True).text(OPTIONS)),
        "multi_modal_data": {"audio": (audio.samples, audio.sample_rate)},
    }

    async def last():
        answers = loaded._llm.generate(given, loaded._new_sampling(max_tokens=1), "ids")
        return [list(answer.prompt_token_ids) async for answer in answers][-1]

    return await engine._thread.run(last())


async def cancelled(engine, monkey):
    """Count the requests in vLLM before and after a long one is cancelled."""
    monkey["max_tokens"], monkey["ignore_eos"] = 7000, True
    task = asyncio.create_task(hear(engine))
    while not (before := unfinished(engine)):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    task.cancel()
    started = time.monotonic()
    while unfinished(engine) and time.monotonic() - started < 10:
        await asyncio.sleep(0.01)
    monkey.clear()
    return {"before": before, "after": unfinished(engine), "seconds": time.monotonic() - started}


async def killed(engine):
    """Kill vLLM's process during a request; return its outcome and that of the next request."""
    core = engine_core(os.getpid())
    os.kill(core, signal.SIGSTOP)
    task = asyncio.create_task(hear(engine))
    await asyncio.sleep(1)
    os.kill(core, signal.SIGKILL)
    try:
        await task
    except EngineUnavailable as error:
        return {"during": str(error), "after": (await hear(engine)).text}


async def main(folder):
    out = {"refused": await refused_arguments(folder)}
    engine = VllmLocalEngine(folder, ENGINE_ARGUMENTS)
    beats = 0

    async def beat():
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.1)

    heart = asyncio.create_task(beat())
    started = time.monotonic()
    await engine.open()
    out["open_seconds"], out["beats"] = time.monotonic() - started, beats
    heart.cancel()
    monkey = {}
    usual = engine._loaded._new_sampling
    engine._loaded._new_sampling = lambda **given: usual(**(given | monkey))
    one = await hear(engine, seconds=3.0, seed=1)
    out["one"] = {
        "text": one.text,
        "avg_logprob": one.avg_logprob,
        "confidences": one.word_confidences,
        "is_cut": one.is_cut,
    }
    out["prompt_ids"] = await prompt_ids(engine)
    many = await asyncio.gather(*(hear(engine, seed) for seed in range(BATCH)))
    out["many"] = sorted({it.text for it in many})
    out["order"] = [it.chunk_index for it in many]
    out["cancelled"] = await cancelled(engine, monkey)
    out["killed"] = await killed(engine)
    await engine.close()
    await asyncio.sleep(2)
    family = [Path(f"/proc/{it.pid}/cmdline").read_bytes() for it in descendants(os.getpid())]
    out["left"] = [it.decode() for it in family if b"resource_tracker" not in it]
    print(json.dumps(out))


if __name__ == "__main__":
    assert vllm_local.SLOTS >= BATCH
    asyncio.run(main(sys.argv[1]))
