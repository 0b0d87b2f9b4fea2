"""The interface of an engine: one chunk of audio in, one hypothesis out.

An engine knows nothing of files, of other chunks, or of HTTP. It does its own batching: `slots` is
the number of chunks that the pipeline keeps in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from asr.config import check
from asr.text.languages import Language, read_language
from asr.types import Hypothesis

if TYPE_CHECKING:
    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk


MODEL_ALIASES: Final = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize",
    "gpt-transcribe",
    "gpt-realtime-whisper",
    "gpt-live-transcribe",
)
"""OpenAI's names of models, which clients send because they must name one. The engine answers."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do with the options of a request. ``/v1/models`` shows it.

    Attributes:
        languages: ISO-639-1 codes of the languages it is made for; the first is the default.
        detects_language: it recognises what is spoken if the request names no language. It does not
            say which language that is.
        prompt: it uses `DecodeOptions.prompt`; likewise `keywords` and `temperature`.
    """

    languages: tuple[str, ...] = ("en",)
    detects_language: bool = False
    prompt: bool = False
    keywords: bool = False
    temperature: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbed(Hypothesis):
    """An answer from which words were removed that somebody may have said after all.

    Attributes:
        uncut: the answer with these words.
        is_kept: for each word of `uncut`, whether the answer has it.
    """

    uncut: Hypothesis
    is_kept: tuple[bool, ...]

    @classmethod
    def of(cls, heard: Hypothesis, uncut: Hypothesis, is_kept: tuple[bool, ...]) -> Scrubbed:
        """Return the answer together with the uncut one."""
        return cls(**_fields(heard), uncut=uncut, is_kept=is_kept)

    @property
    def plain(self) -> Hypothesis:
        """The answer alone."""
        return Hypothesis(**_fields(self))


def _fields(heard: Hypothesis) -> dict[str, Any]:
    return {it.name: getattr(heard, it.name) for it in fields(Hypothesis)}


class Engine(Protocol):
    """A recogniser. Engines without guards subclass it to inherit the defaults.

    Attributes:
        name: engine and model, for the transcript.
        model: the id in ``/v1/models``.
        slots: how many chunks it processes at once.
        language: ISO-639-1 code of the language it recognises if the request names none.
        preferred_seconds: longest chunk unless the speech has no pause; None for
            `ChunkOptions.max_seconds`. The request may override it.
        guarded: whether the guards check its answers. True for an engine that may invent text.
        retry_note: how `retry` differs from `transcribe`, as text for people.
        capabilities: what it can do with the options of a request.

    An engine that asks a model with a text can have an attribute ``question_id``, a fingerprint of
    that text. A job that continues reuses only hypotheses with the same one. The guards then also
    look for thoughts of the model.

    An engine that may fail after it was opened can have a property ``obstacle``: why it can
    recognise nothing now, or an empty text. ``GET /ready`` tells it.
    """

    name: str
    model: str
    slots: int
    language: str
    preferred_seconds: float | None = None
    guarded: bool = False
    retry_note: str = ""
    capabilities: Capabilities = Capabilities()

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Return warnings about options that this engine ignores.

        Raises:
            InvalidOption: the engine cannot serve an option, such as an unknown language.
        """
        ...

    async def open(self) -> None:
        """Load the model. May be called again after a failure.

        Raises:
            EngineUnavailable: the engine cannot be used now.
        """
        ...

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise the samples of one chunk.

        Returns:
            A hypothesis with times in seconds from the start of the chunk. It has no words if the
            engine gives no times.

        Raises:
            EngineError: recognition failed.
        """
        ...

    async def retry(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise a chunk in another way, after the guards objected to the first answer.

        Each engine chooses its own way: a higher temperature breaks most loops of a model that
        samples tokens, but has no effect on greedy decoding. An engine that is not guarded needs no
        `retry` of its own.

        Returns:
            A hypothesis like that of `transcribe`.

        Raises:
            EngineError: recognition failed.
        """
        return await self.transcribe(chunk, audio, options)

    async def close(self) -> None:
        """Free memory, processes and connections."""
        ...


def ignored(engine: str, options: DecodeOptions) -> tuple[str, ...]:
    """Warnings about given options, for an engine that has neither prompts nor a temperature."""
    given = {
        "prompt": options.prompt is not None,
        "keywords": bool(options.keywords),
        "temperature": bool(options.temperature),
    }
    return tuple(f"{engine} ignores {name}" for name, is_set in given.items() if is_set)


def settle(engine: Engine, options: DecodeOptions) -> tuple[DecodeOptions, tuple[str, ...]]:
    """Fit the options to the engine: read languages, choose one of several, and check all options.

    Languages may have any spelling that `read_language` reads, such as ``English`` or ``auto``.

    Returns:
        The options for the engine, and warnings about what it does not use.

    Raises:
        InvalidOption: the engine cannot serve an option.
    """
    coded, spelling = _with_codes(options)
    chosen, choice = _choose_language(engine, coded)
    notes = spelling + choice
    if options.model not in ("", engine.model, engine.name, *MODEL_ALIASES):
        notes += (f"model: {engine.model} is used, because {options.model!r} is not served here",)
    return chosen, notes + engine.check(chosen)


def _with_codes(options: DecodeOptions) -> tuple[DecodeOptions, tuple[str, ...]]:
    """The options with codes of languages. The engine refuses what is no language."""
    only = None if options.language is None else _read(options.language)
    several = [_read(text) for text in options.languages]
    notes = tuple(
        f"{name}: only {found.code!r} of {text!r} is used"
        for name, text, found in (
            *([("language", options.language, only)] if only else []),
            *(("languages", *pair) for pair in zip(options.languages, several, strict=True)),
        )
        if found.code and found.rest
    )
    is_open = any(found.code is None for found in several)
    codes = () if is_open else tuple(dict.fromkeys(found.code or "" for found in several))
    return replace(options, language=only and only.code, languages=codes), notes


def _read(text: str) -> Language:
    try:
        return read_language(text)
    except ValueError:
        return Language(text)


def _choose_language(
    engine: Engine, options: DecodeOptions
) -> tuple[DecodeOptions, tuple[str, ...]]:
    # An engine of somebody else may lack capabilities. Then it gets the first language.
    able = getattr(engine, "capabilities", Capabilities(options.languages))
    if options.language is not None or not options.languages or able.detects_language:
        return options, ()
    known = [code for code in options.languages if code in able.languages]
    offered = ", ".join(able.languages)
    check(bool(known), "languages", f"{engine.model} recognises {offered}: send one of them")
    note = f"languages: only {known[0]!r} is used, because {engine.model} cannot choose"
    return replace(options, language=known[0]), (note,) if len(options.languages) > 1 else ()
