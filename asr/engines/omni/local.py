"""Omni on vLLM in this process, without a server: no HTTP and no base64.

vLLM runs on its own event loop in its own thread. It blocks its loop for minutes while it loads. On
the service's loop that would stop all answers, and a silent service counts as dead. The model runs
in processes that vLLM starts; `asr.engines.omni.watchdog` ends them when this process is killed.

vllm is imported only when the engine opens.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import logging
import os
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asr.engines.omni import prompt as omni
from asr.engines.omni.instruction import PLACEHOLDER, TEMPLATE, Question, ignored
from asr.engines.omni.watchdog import Watchdog
from asr.errors import AsrError, EngineFailed, EngineTimeout, EngineUnavailable, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk, Hypothesis

logger = logging.getLogger(__name__)

SLOTS: Final = 64
DEADLINE_BASE: Final = 120.0
DEADLINE_PER_SECOND: Final = 8.0
"""The deadline of a chunk: seconds for any chunk, plus seconds for each second of its audio. It is
the same as over HTTP."""
ENVIRONMENT: Final = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads, so forking is unsafe
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",  # more threads compete for the cores (benchmarks/gpu/README.md)
}
ARGUMENTS: Final[Mapping[str, Any]] = {
    "trust_remote_code": True,  # the model has its own configuration class
    "max_model_len": 16384,  # 600 s of audio, the longest chunk, and the longest answer to it
    "limit_mm_per_prompt": {"audio": 1, "image": 0, "video": 0},
    "enable_prefix_caching": False,  # the audio comes first and is new each time
    "mm_processor_cache_gb": 0,
    "scheduler_cls": "asr.engines.omni.gather.GatheringScheduler",
    "disable_log_stats": True,
}
"""Arguments of vLLM's engine for one chunk of audio in each request."""

T = TypeVar("T")


class VllmLocalEngine:
    """Nemotron-3-Nano-Omni on an `AsyncLLM`.

    Args:
        model: folder or id of the model.
        arguments: for `vllm.AsyncEngineArgs`; they override `ARGUMENTS`.
        slots: largest number of chunks in flight, or 0 for `SLOTS`.
        template: the instruction; it may contain ``{language}``.

    Raises:
        EngineUnavailable: vLLM is not installed.
    """

    language = "en"
    preferred_seconds: float | None = None
    guarded = True
    retry_note = omni.RETRY_NOTE
    capabilities = omni.CAPABILITIES

    def __init__(
        self,
        model: str,
        arguments: Mapping[str, Any],
        slots: int = 0,
        template: str = TEMPLATE,
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise EngineUnavailable(
                "omni-local needs vLLM 0.20 or newer in this environment: "
                "pip install 'asr-service[vllm]', or set ASR_VLLM_URL to a vLLM server"
            )
        self.slots = slots or SLOTS
        self.model = Path(model).name if Path(model).is_dir() else model
        self._question = Question(template, is_placed=True)
        self.question_id = self._question.fingerprint
        self.name = f"omni ({self.model} on vLLM, in process{self._question.note})"
        self._arguments = {"model": model, **ARGUMENTS, **arguments}
        self._thread: _LoopThread | None = None
        self._loaded: _Omni | None = None
        self._opening = asyncio.Lock()

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Accept everything; warn about text that is not read in full."""
        return ignored(options, self._question.template)

    async def open(self) -> None:
        """Load the model if it is not loaded."""
        await self._omni()

    @property
    def obstacle(self) -> str:
        """Why no chunk can be recognised now; empty if one can."""
        is_dead = self._loaded is not None and self._loaded.is_dead
        return "vLLM's processes have died" if is_dead else ""

    async def _omni(self) -> _Omni:
        """Return the loaded model; load it again if its processes have died."""
        async with self._opening:
            if self._loaded is not None and self._loaded.is_dead:
                logger.warning("vLLM's processes have died and are started again")
                await self._unload()
            if self._thread is None:
                self._thread = _LoopThread("vllm")
            if self._loaded is None:
                self._loaded = await self._thread.run(_load(self._arguments))
            return self._loaded

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk. Cancelling the task makes vLLM abort the request."""
        loaded = await self._omni()
        thread = self._thread
        if thread is None:
            raise EngineUnavailable("the engine is closed")
        try:
            async with asyncio.timeout(DEADLINE_BASE + DEADLINE_PER_SECOND * audio.duration):
                asked = self._question.text(options)
                return await thread.run(loaded.hear(chunk, audio, options, asked))
        except TimeoutError as error:
            message = f"no answer for the chunk at {chunk.start:.1f} s before its deadline"
            raise EngineTimeout(message) from error

    async def retry(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk at a higher temperature."""
        return await self.transcribe(chunk, audio, omni.warmer(options))

    async def close(self) -> None:
        """End vLLM's processes and its thread."""
        async with self._opening:
            await self._unload()
            thread, self._thread = self._thread, None
            if thread is not None:
                await asyncio.to_thread(thread.stop)

    async def _unload(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None and self._thread is not None:
            await self._thread.run(loaded.close())


class _LoopThread:
    """An event loop in its own thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread and wait for it; cancellation reaches it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def stop(self) -> None:
        """End the loop and wait for the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


# --- in vLLM's thread ---------------------------------------------------------------------------


async def _load(arguments: Mapping[str, Any]) -> _Omni:
    """Start vLLM and load the model; this blocks the loop."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    watchdog = Watchdog()
    try:
        return await _start(arguments, watchdog)
    except AsrError:
        watchdog.dismiss()
        raise
    except Exception as error:  # vLLM's errors have no common base class
        watchdog.dismiss()
        raise EngineUnavailable(f"vLLM did not load the model: {error}") from error


async def _start(arguments: Mapping[str, Any], watchdog: Watchdog) -> _Omni:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        engine_arguments = AsyncEngineArgs(**arguments)
    except (TypeError, ValueError) as error:
        raise InvalidOption("vllm_args", f"vLLM rejects them: {error}") from error
    llm = AsyncLLM.from_engine_args(engine_arguments)
    tokenizer = llm.get_tokenizer()
    if asyncio.iscoroutine(tokenizer):  # in older versions
        tokenizer = await tokenizer
    return _Omni(llm, tokenizer, watchdog)


class _Omni:
    """The loaded model."""

    def __init__(self, llm: Any, tokenizer: Any, watchdog: Watchdog) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._llm = llm
        self._tokenizer = tokenizer
        self._watchdog = watchdog
        self._new_sampling = SamplingParams
        self._usual = {
            **llm.model_config.get_diff_sampling_param(),  # as vLLM's server does
            "logprobs": 0,  # only of the sampled token
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        self._ids = itertools.count()

    @property
    def is_dead(self) -> bool:
        """Whether vLLM's processes have ended."""
        return bool(self._llm.errored)

    async def hear(
        self, chunk: Chunk, audio: Audio, options: DecodeOptions, asked: str
    ) -> Hypothesis:
        """Recognise one chunk."""
        try:
            output = await self._generate(audio, options, asked)
        except AsrError:
            raise
        except Exception as error:
            if self.is_dead:
                raise EngineUnavailable("vLLM's processes died and are started again") from error
            message = f"vLLM failed on the chunk at {chunk.start:.1f} s: {error}"
            raise EngineFailed(message, chunk.index) from error
        if output.finish_reason in omni.ABORTED:
            raise EngineUnavailable("vLLM aborted its answer")
        tokens = [
            _token(drawn[token_id])
            for token_id, drawn in zip(output.token_ids, output.logprobs or (), strict=False)
        ]
        is_cut = output.finish_reason == "length"
        return omni.hypothesis(chunk.index, output.text, tokens, is_cut=is_cut)

    async def _generate(self, audio: Audio, options: DecodeOptions, asked: str) -> Any:
        sampling = omni.sampling(options, audio.duration)
        given = {
            "prompt": self.prompt(asked),
            "multi_modal_data": {"audio": (audio.samples, audio.sample_rate)},
        }
        parameters = self._new_sampling(**{**self._usual, **sampling._asdict()})
        async for answer in self._llm.generate(given, parameters, f"chunk-{next(self._ids)}"):
            final = answer
        return final.outputs[0]

    def prompt(self, text: str) -> str:
        """Return the prompt of a user's turn whose text has the placeholder of its audio.

        Some chat templates want the audio as a content part beside the text. Others put a second
        placeholder before the text if there is such a part, and get the text alone.
        """
        for content in ([{"type": "audio"}, {"type": "text", "text": text}], text):
            prompt = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            if prompt.count(PLACEHOLDER) == 1 and text in prompt:
                return str(prompt)
        raise EngineUnavailable(
            f"the chat template of the model does not keep the text with {PLACEHOLDER} for audio"
        )

    async def close(self) -> None:
        """End vLLM's processes."""
        self._llm.shutdown()
        self._watchdog.dismiss()


def _token(drawn: Any) -> omni.Token:
    text = drawn.decoded_token or ""
    return omni.Token(text.encode(errors="replace"), float(drawn.logprob))


def read_arguments(text: str) -> dict[str, Any]:
    """Parse the engine arguments in a setting.

    Raises:
        InvalidOption: the text is not a JSON object.
    """
    try:
        arguments = json.loads(text or "{}")
    except ValueError as error:
        raise InvalidOption("vllm_args", f"must be a JSON object: {error}") from None
    if not isinstance(arguments, dict):
        raise InvalidOption("vllm_args", 'must be a JSON object, such as {"max_num_seqs": 256}')
    return arguments
