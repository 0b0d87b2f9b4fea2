"""Arguments of several commands, and the options made from them."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from asr.config import DecodeOptions, Options, SubtitleOptions, VadOptions, read_speakers
from asr.output.formats import EXTENSIONS
from asr.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    import argparse


def add_recognition(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `settings_of` and `options_of` read."""
    engines = "auto, omni, omni-local, moonshine or onnx (default: ASR_ENGINE)"
    parser.add_argument("--engine", help=engines)
    parser.add_argument("--aligner", help="auto, sphinx, ctc or none (default: ASR_ALIGNER)")
    parser.add_argument("--language", help="code or English name of the language, or auto")
    parser.add_argument("--prompt", help="text that gives the engine context")
    parser.add_argument("--vad", choices=("webrtc", "silero", "off"), help="default: ASR_VAD")


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of the environment, overridden by arguments."""
    env = dict(os.environ)
    for name in ("engine", "aligner", "vad"):
        if getattr(options, name):
            env[ENV_PREFIX + name.upper()] = getattr(options, name)
    return Settings.from_env(env)


def options_of(options: argparse.Namespace, settings: Settings) -> Options:
    """The options of the pipeline."""
    return Options(
        vad=VadOptions(kind=settings.vad),
        decode=DecodeOptions(language=options.language, prompt=options.prompt),
        limits=settings.limits,
        channels=getattr(options, "channels", "mix"),
        track=getattr(options, "track", None),
        on_error=getattr(options, "on_error", "fail"),
        speakers=read_speakers(getattr(options, "speakers", None) or "off"),
    )


def add_speakers(parser: argparse.ArgumentParser) -> None:
    """Add ``--speakers``."""
    text = "tell speakers apart by their voices: off, auto, their number, or a range such as 2-5"
    parser.add_argument("--speakers", metavar="N", help=f"{text} (default: off)")


def add_known_speakers(parser: argparse.ArgumentParser) -> None:
    """Add ``--known-speaker``."""
    parser.add_argument(
        "--known-speaker",
        action="append",
        default=[],
        metavar="NAME[=FILE]",
        help="NAME=FILE is a recording of this person alone, NAME is a voice that "
        "`asr speakers enrol` stored; may be repeated, and implies --speakers auto",
    )


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add ``--track``."""
    text = "the only audio track to transcribe, from 0 (default: the first that is not silent)"
    parser.add_argument("--track", type=int, metavar="N", help=text)


def add_channels(parser: argparse.ArgumentParser) -> None:
    """Add ``--channels``."""
    text = "split: transcribe each channel, or each audio track, separately (default: mix)"
    parser.add_argument("--channels", choices=("mix", "split"), default="mix", help=text)


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """Add ``--on-error``."""
    text = "if a stretch cannot be transcribed, gap marks it and goes on (default: fail)"
    parser.add_argument("--on-error", choices=("fail", "gap"), default="fail", help=text)


def add_recording(parser: argparse.ArgumentParser) -> None:
    """Add the argument for a single recording."""
    parser.add_argument("audio", metavar="AUDIO", help="the recording; - is standard input")


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the arguments for output folder and format."""
    parser.add_argument(
        "-f", "--format", choices=EXTENSIONS, default=default, help=f"default: {default}"
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        help="write one file for each recording into this folder (default: standard output)",
    )
    add_quiet(parser)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def add_subtitles(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `subtitles_of` reads."""
    group = parser.add_argument_group("srt and vtt")
    for item in fields(SubtitleOptions):
        flag, text = "--" + item.name.replace("_", "-"), item.metadata["doc"]
        if isinstance(item.default, bool):
            group.add_argument(flag, action="store_true", help=text)
        else:
            kind = type(item.default)
            shown = f"{text} (default: {item.default:g})"
            group.add_argument(flag, type=kind, default=item.default, metavar="X", help=shown)


def subtitles_of(options: argparse.Namespace) -> SubtitleOptions:
    """The subtitle options."""
    return SubtitleOptions(
        **{item.name: getattr(options, item.name) for item in fields(SubtitleOptions)}
    )
