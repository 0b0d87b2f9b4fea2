"""The command line: ``asr transcribe | serve | evaluate | doctor | settings | schema``.

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
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

from asr.config import (
    ENV_PREFIX,
    DecodeOptions,
    Options,
    Settings,
    SubtitleOptions,
    VadOptions,
    settings_table,
)
from asr.engines import load_engine
from asr.errors import AsrError, InvalidOption
from asr.formats import render
from asr.pipeline import Progress, Transcriber, collect

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

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


# --- transcribe ---------------------------------------------------------------------------------


def _add_transcribe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings; - is standard input")
    parser.add_argument("-f", "--format", choices=FORMAT_OF_NAME, default="txt")
    parser.add_argument("-o", "--output-dir", type=Path, help="write FILE's name with the format")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--max-line-width", type=int, default=42, help="of srt and vtt")
    parser.add_argument("--max-line-count", type=int, default=2, help="of srt and vtt")
    parser.add_argument("--max-cue-duration", type=float, default=7.0, help="seconds, srt and vtt")
    _add_recognition(parser)
    parser.set_defaults(run=_run_transcribe)


def _settings(options: argparse.Namespace) -> Settings:
    env = dict(os.environ)
    for name in ("engine", "vad"):
        if getattr(options, name):
            env[ENV_PREFIX + name.upper()] = getattr(options, name)
    return Settings.from_env(env)


def _options(options: argparse.Namespace, settings: Settings) -> Options:
    return Options(
        vad=VadOptions(kind=settings.vad),
        decode=DecodeOptions(language=options.language, prompt=options.prompt),
        limits=settings.limits,
    )


def _run_transcribe(options: argparse.Namespace) -> int:
    subtitles = SubtitleOptions(
        options.max_line_width, options.max_line_count, options.max_cue_duration
    )
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    n_failed = asyncio.run(_transcribe_all(options, _settings(options), subtitles))
    return 1 if n_failed else 0


async def _transcribe_all(
    options: argparse.Namespace, settings: Settings, subtitles: SubtitleOptions
) -> int:
    """Transcribe file after file; one that fails does not stop the others."""
    n_failed = 0
    async with Transcriber(load_engine(settings)) as transcriber:
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
    parser.add_argument("--json", type=Path, help="write the whole report here")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    _add_recognition(parser)
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> int:
    # jiwer and its friends are for this command alone.
    from asr.evaluation import evaluate, read_manifest

    settings = _settings(options)
    utterances = read_manifest(options.manifest)
    with asyncio.Runner() as runner:
        transcriber = Transcriber(load_engine(settings))
        runner.run(transcriber.open())

        def transcribe(path: Path) -> Transcript:
            work = transcriber.transcribe_file(path, _options(options, settings))
            return runner.run(collect(work))

        bar = tqdm(total=len(utterances), unit="file", disable=True if options.quiet else None)
        with bar:
            report = evaluate(utterances, transcribe, on_result=lambda _: bar.update())
        runner.run(transcriber.close())
    print(report.to_markdown(options.collar))
    if options.json is not None:
        options.json.write_text(report.to_json(options.collar), encoding="utf-8")
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
    for check in examine(Settings.from_env(env)):
        print(check, flush=True)
        n_failed += check.level == "fail"
    return 1 if n_failed else 0


def _run_settings(_: argparse.Namespace) -> int:
    print(settings_table())
    return 0


def _run_schema(_: argparse.Namespace) -> int:
    # pydantic belongs to the service.
    from asr.service.schemas import TranscriptBody

    print(json.dumps(TranscriptBody.model_json_schema(), indent=2))
    return 0
