"""The command line: ``asr transcribe | align | plot | clips | serve | evaluate | doctor | ...``.

Exit codes: 0 all went well, 1 at least one recording failed, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

from asr.align import load_aligner
from asr.alignment import align_file
from asr.config import (
    ENV_PREFIX,
    ChunkOptions,
    DecodeOptions,
    Options,
    Settings,
    SubtitleOptions,
    VadOptions,
    check,
    settings_table,
)
from asr.engines import load_engine
from asr.errors import AsrError, InvalidOption
from asr.formats import render
from asr.pipeline import Progress, collect, make_transcriber
from asr.types import Segment

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from asr.inspection import Inspection
    from asr.pipeline import Event
    from asr.types import Transcript

FORMAT_OF_NAME: Final = {"srt": "srt", "vtt": "vtt", "json": "json", "txt": "text", "tsv": "tsv"}
USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return int(options.run(options))
    except InvalidOption as error:
        print(f"asr: {error.name}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except AsrError as error:
        print(f"asr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asr", description="Speech to text with word times.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_transcribe(commands.add_parser("transcribe", help="transcribe files"))
    _add_align(commands.add_parser("align", help="time the words of a known text"))
    _add_plot(commands.add_parser("plot", help="draw what was heard where"))
    _add_clips(commands.add_parser("clips", help="cut a recording into its segments"))
    _add_serve(commands.add_parser("serve", help="start the web service"))
    _add_evaluate(commands.add_parser("evaluate", help="score against references"))
    _add_keys(commands.add_parser("keys", help="make API keys"))
    _add_doctor(commands.add_parser("doctor", help="check this setup and say what to mend"))
    settings = commands.add_parser("settings", help="print the table of settings")
    settings.set_defaults(run=_run_settings)
    schema = commands.add_parser("schema", help="print the JSON Schema of transcripts")
    schema.set_defaults(run=_run_schema)
    return parser


def _add_recognition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", help="auto, omni or pocketsphinx (default: ASR_ENGINE)")
    parser.add_argument("--aligner", help="auto, sphinx, ctc or none (default: ASR_ALIGNER)")
    parser.add_argument("--language", help="ISO-639-1 code")
    parser.add_argument("--prompt", help="context for the engine")
    parser.add_argument("--vad", choices=("webrtc", "silero", "off"), help="default: ASR_VAD")


# --- keys ---------------------------------------------------------------------------------------


def _add_keys(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser("new", help="print a new key, and its line for ASR_API_KEYS_FILE")
    new.add_argument("name", metavar="NAME", help="in logs, metrics and lists of jobs")
    new.set_defaults(run=_run_keys_new)


def _run_keys_new(options: argparse.Namespace) -> int:
    from asr.service.keys import new_key

    key, line = new_key(options.name)
    print(f"key, shown this once: {key}", file=sys.stderr)
    print(line)
    return 0


def _add_channels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channels", choices=("mix", "split"), default="mix", help="split: each by itself"
    )


def _add_output(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("-f", "--format", choices=FORMAT_OF_NAME, default=default)
    parser.add_argument("-o", "--output-dir", type=Path, help="write FILE's name with the format")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def _add_subtitles(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("srt and vtt")
    for item in fields(SubtitleOptions):
        flag, text = "--" + item.name.replace("_", "-"), item.metadata["doc"]
        if isinstance(item.default, bool):
            group.add_argument(flag, action="store_true", help=text)
        else:
            kind = type(item.default)
            group.add_argument(flag, type=kind, default=item.default, metavar="X", help=text)


def _subtitles(options: argparse.Namespace) -> SubtitleOptions:
    return SubtitleOptions(
        **{item.name: getattr(options, item.name) for item in fields(SubtitleOptions)}
    )


# --- transcribe ---------------------------------------------------------------------------------


def _add_transcribe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings; - is standard input")
    _add_output(parser, "txt")
    _add_recognition(parser)
    _add_channels(parser)
    _add_subtitles(parser)
    parser.set_defaults(run=_run_transcribe)


def _settings(options: argparse.Namespace) -> Settings:
    env = dict(os.environ)
    for name in ("engine", "aligner", "vad"):
        if getattr(options, name):
            env[ENV_PREFIX + name.upper()] = getattr(options, name)
    return Settings.from_env(env)


def _options(options: argparse.Namespace, settings: Settings) -> Options:
    return Options(
        vad=VadOptions(kind=settings.vad),
        decode=DecodeOptions(language=options.language, prompt=options.prompt),
        limits=settings.limits,
        channels=getattr(options, "channels", "mix"),
    )


def _run_transcribe(options: argparse.Namespace) -> int:
    subtitles = _subtitles(options)
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    n_failed = asyncio.run(_transcribe_all(options, _settings(options), subtitles))
    return 1 if n_failed else 0


async def _transcribe_all(
    options: argparse.Namespace, settings: Settings, subtitles: SubtitleOptions
) -> int:
    """Transcribe file after file; one that fails does not stop the others."""
    n_failed = 0
    async with make_transcriber(settings) as transcriber:
        for name in options.files:
            try:
                with _source(name) as path, _Bar(name, hidden=options.quiet) as bar:
                    events = transcriber.transcribe_file(path, _options(options, settings))
                    transcript = await collect(events, bar.on_event)
                _write(render(transcript, FORMAT_OF_NAME[options.format], subtitles), name, options)
                _say_warnings(name, transcript)
            except (AsrError, OSError) as error:
                if isinstance(error, InvalidOption):
                    raise
                n_failed += 1
                print(f"asr: {name}: {error}", file=sys.stderr)
    return n_failed


# --- align --------------------------------------------------------------------------------------


def _add_align(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("audio", metavar="AUDIO", help="the recording; - is standard input")
    parser.add_argument("text", metavar="TEXT", type=Path, help="a file with what is said in it")
    _add_output(parser, "srt")
    _add_recognition(parser)
    _add_subtitles(parser)
    parser.set_defaults(run=_run_align)


def _run_align(options: argparse.Namespace) -> int:
    subtitles, settings = _subtitles(options), _settings(options)
    try:
        text = options.text.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption("TEXT", f"{options.text} cannot be read as UTF-8 ({error})") from error
    options.files = [options.audio]
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)

    async def work(path: Path, bar: _Bar) -> Transcript:
        async with make_transcriber(settings) as transcriber:
            events = align_file(transcriber, path, text, _options(options, settings))
            return await collect(events, bar.on_event)

    try:
        with _source(options.audio) as path, _Bar(options.audio, hidden=options.quiet) as bar:
            transcript = asyncio.run(work(path, bar))
    except OSError as error:
        print(f"asr: {options.audio}: {error}", file=sys.stderr)
        return 1
    _write(render(transcript, FORMAT_OF_NAME[options.format], subtitles), options.audio, options)
    _say_warnings(options.audio, transcript)
    return 0


@contextlib.contextmanager
def _source(name: str) -> Generator[Path]:
    """The file of that name; standard input is spooled, since most formats need to seek."""
    if name != "-":
        path = Path(name)
        if path.exists() and not path.is_file():
            raise IsADirectoryError("not a regular file")
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="asr-stdin-") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        yield Path(spool.name)


def _write(text: str, name: str, options: argparse.Namespace) -> None:
    if options.output_dir is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    target = options.output_dir / f"{_stem(name, options.files)}.{options.format}"
    partial = target.with_name(target.name + ".part")
    partial.write_text(text, encoding="utf-8", newline="")
    partial.replace(target)  # so that a file that is there is a whole one


def _stem(name: str, names: Sequence[str]) -> str:
    """Its stem, or its whole name where two files of the run would write the same one."""
    if name == "-":
        return "stdin"
    stem = Path(name).stem
    is_alone = [Path(other).stem for other in names].count(stem) == 1
    return stem if is_alone else Path(name).name


def _say_warnings(name: str, transcript: Transcript) -> None:
    for warning in transcript.warnings:
        print(f"asr: {name}: warning: {warning}", file=sys.stderr)


class _Bar:
    """A progress bar in seconds of audio, with RTFx and the time left; on a terminal only."""

    FORMAT = (
        "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s of audio"
        "{postfix}, {remaining} left"
    )

    def __init__(self, name: str, *, hidden: bool) -> None:
        off = True if hidden else None  # None: only where standard error is a terminal
        self._tqdm = tqdm(
            total=1.0, desc=Path(name).name, bar_format=self.FORMAT, postfix="", disable=off
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()

    def on_event(self, event: Event) -> None:
        if not isinstance(event, Progress) or self._tqdm.disable:
            return
        self._tqdm.total = event.total or max(event.decoded, 1.0)
        self._tqdm.n = min(event.transcribed, self._tqdm.total)
        elapsed = self._tqdm.format_dict["elapsed"]
        rtfx = self._tqdm.n / elapsed if elapsed else 0.0
        self._tqdm.set_postfix_str(f"RTFx {rtfx:.1f}")


# --- plot and clips -----------------------------------------------------------------------------


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("audio", metavar="AUDIO", help="the recording; - is standard input")
    parser.add_argument("-o", "--output", type=Path, help="PNG (default: AUDIO's name with .png)")
    parser.add_argument("--start", type=float, default=0.0, help="seconds (default: 0)")
    parser.add_argument("--end", type=float, help="seconds (default: a minute after the start)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    _add_recognition(parser)
    parser.set_defaults(run=_run_plot)


def _run_plot(options: argparse.Namespace) -> int:
    # librosa takes seconds to import, and is an extra.
    from asr.inspection import Inspector
    from asr.pictures import MAX_SECONDS, plot

    settings, start = _settings(options), options.start
    end = start + 60 if options.end is None else options.end
    check(0 <= start < end, "start", "must not be negative, and lie before --end")
    check(end - start <= MAX_SECONDS, "end", f"at most {MAX_SECONDS:g} seconds fit in a picture")

    async def work(path: Path, bar: _Bar) -> Inspection:
        async with Inspector(load_engine(settings), load_aligner(settings)) as inspector:
            chosen = _options(options, settings)
            return await inspector.inspect(path, chosen, (start, end), bar.on_event)

    with _source(options.audio) as path, _Bar(options.audio, hidden=options.quiet) as bar:
        inspection = asyncio.run(work(path, bar))
    target = options.output or Path(f"{_stem(options.audio, [options.audio])}.png")
    plot(inspection, target)
    print(target)
    return 0


def _add_clips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("audio", metavar="AUDIO", help="the recording; - is standard input")
    parser.add_argument("-o", "--output-dir", type=Path, required=True, help="for the WAV files")
    parser.add_argument("--padding", type=float, default=0.1, help="seconds around each segment")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    _add_recognition(parser)
    parser.set_defaults(run=_run_clips)


def _run_clips(options: argparse.Namespace) -> int:
    # pydub is an extra.
    from asr.clips import ClipWriter
    from asr.inspection import Inspector

    settings, writer = _settings(options), ClipWriter(options.output_dir, options.padding)

    async def work(path: Path, bar: _Bar) -> Transcript:
        async with Inspector(load_engine(settings), load_aligner(settings)) as inspector:

            def on_event(event: Event) -> None:
                bar.on_event(event)
                if isinstance(event, Segment) and event.words and inspector.recording:
                    writer.write(event, inspector.recording, inspector.n_samples)

            events = inspector.transcribe_file(path, _options(options, settings))
            return await collect(events, on_event)

    with _source(options.audio) as path, _Bar(options.audio, hidden=options.quiet) as bar:
        transcript = asyncio.run(work(path, bar))
    _say_warnings(options.audio, transcript)
    return 0


# --- serve --------------------------------------------------------------------------------------


def _add_serve(parser: argparse.ArgumentParser) -> None:
    for item in fields(Settings):
        flag = "--" + item.name.replace("_", "-")
        text = f"{item.metadata['doc']} ({ENV_PREFIX}{item.name.upper()})"
        parser.add_argument(flag, dest=f"setting_{item.name}", metavar="X", help=text)
    parser.set_defaults(run=_run_serve)


def _run_serve(options: argparse.Namespace) -> int:
    # The web stack takes a second to import, and only this command needs it.
    from asr.service import serve

    env = dict(os.environ)
    for item in fields(Settings):
        value = getattr(options, f"setting_{item.name}")
        if value is not None:
            env[ENV_PREFIX + item.name.upper()] = value
    serve(Settings.from_env(env))
    return 0


# --- the rest -----------------------------------------------------------------------------------


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="JSON lines with file, text and maybe words")
    parser.add_argument("--collar", type=float, default=0.2, help="seconds that a word may be off")
    parser.add_argument(
        "--times", action="store_true", help="measure the aligner: chunks get the reference's text"
    )
    parser.add_argument("--chunk-seconds", type=float, default=30.0, help="longest chunk")
    parser.add_argument("--json", type=Path, help="write the whole report here")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw histograms of the errors")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    _add_recognition(parser)
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> int:
    # jiwer and its friends are for this command alone.
    from asr.evaluation import ReferenceEngine, evaluate, read_manifest

    settings = _settings(options)
    chosen = replace(
        _options(options, settings), chunk=ChunkOptions(max_seconds=options.chunk_seconds)
    )
    utterances = read_manifest(options.manifest)
    words_of = {utterance.file: utterance.words for utterance in utterances}
    reference = ReferenceEngine(settings.workers)
    with asyncio.Runner() as runner:
        make_engine = (lambda _: reference) if options.times else load_engine
        transcriber = make_transcriber(settings, make_engine)
        runner.run(transcriber.open())

        def transcribe(path: Path) -> Transcript:
            reference.words = words_of[path]
            return runner.run(collect(transcriber.transcribe_file(path, chosen)))

        bar = tqdm(total=len(utterances), unit="file", disable=True if options.quiet else None)
        with bar:
            report = evaluate(utterances, transcribe, on_result=lambda _: bar.update())
        runner.run(transcriber.close())
    print(report.to_markdown(options.collar))
    if options.json is not None:
        options.json.write_text(report.to_json(options.collar), encoding="utf-8")
    if options.plot is not None:
        from asr.pictures import plot_errors

        print(*plot_errors(report, options.plot, options.collar), sep="\n")
    return 1 if report.failures else 0


# --- the rest -----------------------------------------------------------------------------------


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vllm-url", help="servers to look at (default: ASR_VLLM_URL)")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(options: argparse.Namespace) -> int:
    # It loads every part, which no other command does.
    from asr.doctor import examine

    env = dict(os.environ)
    if options.vllm_url:
        env[ENV_PREFIX + "VLLM_URL"] = options.vllm_url
    n_failed = 0
    for found in examine(Settings.from_env(env)):
        print(found, flush=True)
        n_failed += found.level == "fail"
    return 1 if n_failed else 0


def _run_settings(_: argparse.Namespace) -> int:
    print(settings_table())
    return 0


def _run_schema(_: argparse.Namespace) -> int:
    # pydantic belongs to the service.
    from asr.service.schemas import TranscriptBody

    print(json.dumps(TranscriptBody.model_json_schema(), indent=2))
    return 0
