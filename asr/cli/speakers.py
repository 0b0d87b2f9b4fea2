"""``asr speakers``: install the speaker model; store the voices of people."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asr.cli.files import source
from asr.cli.installing import Installation
from asr.config import SpeakerOptions, check
from asr.errors import AudioError, InvalidOption
from asr.pipeline.transcriber import Transcriber, make_transcriber
from asr.settings import Settings
from asr.speakers.folder import MODEL, installed_folder, model_id
from asr.speakers.install import REQUIREMENT, install, is_installed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from pathlib import Path

    from asr.config import KnownVoice, Options
    from asr.service.speakers.store import VoiceStore

_MODEL: Final = Installation(
    "CAM++",
    f"download CAM++ (81 MB, of which 28 MB stay) from {REQUIREMENT} and convert it",
    f"ASR_SPEAKER_MODEL to its {MODEL}",
    installed_folder,
    is_installed,
    install,
)


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the actions, and set the function to run."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _MODEL.add(actions)
    _add_voices(actions)


def _add_voices(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the actions on stored voices, which are those of the service on this machine."""
    enrol = actions.add_parser("enrol", help="store the voice of a person; no audio is kept")
    enrol.add_argument("name", metavar="NAME", help="name of the person")
    enrol.add_argument("audio", metavar="FILE", help="a recording of this person alone")
    enrol.set_defaults(run=run_enrol)
    shown = actions.add_parser("list", help="print the names of the stored voices")
    shown.set_defaults(run=run_list)
    forget = actions.add_parser("forget", help="delete a stored voice")
    forget.add_argument("name", metavar="NAME", help="name of the person")
    forget.set_defaults(run=run_forget)
    for action in (enrol, shown, forget):
        text = "name of the API key that owns the voices (default: those of a service without keys)"
        action.add_argument("--key", metavar="NAME", default="", help=text)


def run_enrol(options: argparse.Namespace) -> int:
    """Store a voice."""
    from asr.service.speakers.store import check_name  # of the service, which is heavy

    check_name(options.name)
    settings = Settings.from_env()
    with source(options.audio) as path:
        voice = asyncio.run(_embed(path, options.name, settings))
    _store(settings).put(options.key, voice, model_id(settings.speaker_model))
    print(f"{voice.name}: {voice.seconds:.1f} s of speech", file=sys.stderr)
    return 0


def run_list(options: argparse.Namespace) -> int:
    """Print the names of the stored voices."""
    for stored in _store(Settings.from_env()).all(options.key):
        print(stored.voice.name)
    return 0


def run_forget(options: argparse.Namespace) -> int:
    """Delete a stored voice."""
    _store(Settings.from_env()).delete(options.key, options.name)
    return 0


async def _embed(path: Path, name: str, settings: Settings) -> KnownVoice:
    transcriber = make_transcriber(settings)  # its engine is not needed, and stays closed
    try:
        return await transcriber.embed_voice(path, name)
    finally:
        await transcriber.close()


async def with_known(
    options: Options, wanted: Iterable[str], transcriber: Transcriber, settings: Settings
) -> Options:
    """The options with the voices of ``NAME=FILE`` and the stored ones of ``NAME``, if any.

    Known voices imply that speakers are told apart.

    Raises:
        AsrError: a recording cannot be used, or there is no such voice.
    """
    found = []
    for text in wanted:
        name, has_file, file = text.partition("=")
        if has_file:
            found.append(await _voice_in(file, name, transcriber))
        else:
            found.append(_stored_voice(name, settings))
    if not found:
        return options
    speakers = options.speakers or SpeakerOptions()
    return replace(options, speakers=replace(speakers, known=tuple(found)))


async def _voice_in(file: str, name: str, transcriber: Transcriber) -> KnownVoice:
    try:
        with source(file) as path:
            return await transcriber.embed_voice(path, name)
    except (AudioError, OSError) as error:
        raise InvalidOption("known-speaker", f"{file}: {error}") from error
    except InvalidOption as error:
        if error.name == "file":  # the recording
            raise InvalidOption("known-speaker", f"{file} {error}") from error
        raise


def _stored_voice(name: str, settings: Settings) -> KnownVoice:
    from asr.service.errors import NotFound  # of the service, which is heavy

    try:
        stored = _store(settings).get("", name)
    except NotFound as error:
        message = f"{name!r} is no stored voice: write NAME=FILE, or run asr speakers enrol"
        raise InvalidOption("known-speaker", message) from error
    message = f"{name!r} was stored with another speaker model: enrol it again"
    check(stored.model == model_id(settings.speaker_model), "known-speaker", message)
    return stored.voice


async def with_known_alone(options: Options, wanted: Iterable[str], settings: Settings) -> Options:
    """`with_known` without a transcriber; the engine is not needed, and stays closed."""
    transcriber = make_transcriber(settings)
    try:
        return await with_known(options, wanted, transcriber, settings)
    finally:
        await transcriber.close()


def _store(settings: Settings) -> VoiceStore:
    from asr.service.speakers.store import FOLDER, VoiceStore  # of the service, which is heavy

    return VoiceStore(settings.data_path / FOLDER)
