"""Checks of this machine, of the settings, and of our own service."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
import av.codec
import httpx
import numpy as np
import pocketsphinx

from asr.doctor.checks import QUICK_SECONDS, Check, is_this_service, said
from asr.engines import load_engine
from asr.engines.moonshine.folder import CORRECT, find_folder
from asr.engines.omni.local import read_arguments
from asr.errors import EngineUnavailable, InvalidOption, WorkerDied
from asr.speakers.diariser import Diariser
from asr.speakers.folder import INSTALL, model_path
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.doctor.checks import Level
    from asr.engines.base import Engine
    from asr.settings import Settings

MIN_FREE_BYTES: Final = 5 << 30
ONNX_PACKAGES: Final = {"onnx_asr": "asr-service[onnx]", "huggingface_hub": "onnx-asr[hub]"}
"""What installs each package. The second one downloads models, which a folder does not need."""
CODECS: Final = ("aac", "alac", "amrnb", "mp3", "opus", "vorbis", "wmav2")


def check_machine(settings: Settings) -> Iterator[Check]:
    """Check what every service needs: decoders, the aligner's model, and a work folder."""
    yield _ffmpeg()
    yield _pocketsphinx(settings)
    yield _work_dir(settings)


def _ffmpeg() -> Check:
    version = f"PyAV {av.__version__}"
    missing = [name for name in CODECS if name not in av.codec.codecs_available]
    if missing:
        found = f"{version} cannot decode {', '.join(missing)}"
        return Check("ffmpeg", "warn", found, "install av from its wheel")
    return Check("ffmpeg", "ok", version)


def _pocketsphinx(settings: Settings) -> Check:
    try:
        pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
    except (RuntimeError, ValueError, OSError) as error:
        level: Level = "fail" if settings.aligner_name == "sphinx" else "warn"
        return Check("pocketsphinx", level, f"no model: {error}", "reinstall pocketsphinx")
    return Check("pocketsphinx", "ok", "the US English model loads")


def _work_dir(settings: Settings) -> Check:
    folder = settings.work_dir
    if why := _why_unwritable(Path(folder)):
        fix = "choose another with ASR_WORK_DIR"
        return Check("work dir", "fail", f"{folder} cannot be written: {why}", fix)
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        fix = "free some space: an hour of audio takes 115 MB in addition to its file"
        return Check("work dir", "warn", f"{folder} has {free / 1e9:.1f} GB left", fix)
    return Check("work dir", "ok", f"{folder} has {free / 1e9:.0f} GB left")


def check_settings(settings: Settings) -> Iterator[Check]:
    """Check whether a service could start with these settings."""
    yield _engine(settings)
    yield _aligner(settings)
    yield _speakers(settings)
    yield _data_dir(settings)
    yield _database(settings)


def _engine(settings: Settings) -> Check:
    name = settings.engine_name
    if name == "omni" and not settings.vllm_urls:
        return Check("engine", "fail", "omni needs the address of a server", "set ASR_VLLM_URL")
    if name == "omni-local":
        return _omni_local(settings)
    if name == "onnx":
        return _onnx(settings)
    if name == "moonshine":
        return _moonshine(settings)
    return Check("engine", "ok", name)


def _speakers(settings: Settings) -> Check:
    """The speaker model, without which everything else works."""
    chosen = settings.speaker_model
    path = model_path(chosen)
    if not chosen and not path.is_file():
        found = "no speaker model, so speakers are told apart by channel only"
        return Check("speakers", "ok", found, f"run {INSTALL} to tell voices apart")
    try:
        asyncio.run(_loaded_speakers(settings))
    except (EngineUnavailable, WorkerDied) as error:
        reason, _, fix = str(error).rpartition(": ")
        return Check("speakers", "fail", reason or str(error), fix)
    return Check("speakers", "ok", f"{path}, which loads")


async def _loaded_speakers(settings: Settings) -> None:
    diariser = Diariser(1, settings.speaker_model)
    try:
        await diariser.embed_voice(Audio(np.zeros(SAMPLE_RATE, np.float32)))
    finally:
        await diariser.close()


def _moonshine(settings: Settings) -> Check:
    try:
        folder = find_folder(settings.moonshine_model)
    except EngineUnavailable as error:
        reason, _, fix = str(error).rpartition(": ")
        return Check("engine", "fail", reason, fix)
    try:
        asyncio.run(_opened(load_engine(settings)))
    except EngineUnavailable as error:
        fix = CORRECT if settings.moonshine_model else "reinstall onnxruntime"
        return Check("engine", "fail", str(error).removesuffix(f": {CORRECT}"), fix)
    return Check("engine", "ok", f"moonshine in {folder}, which loads")


def _onnx(settings: Settings) -> Check:
    model = settings.onnx_model
    if why := _no_model("engine", "onnx", model, "ASR_ONNX_MODEL"):
        return why
    is_folder = Path(model).expanduser().is_dir()
    for package, extra in ONNX_PACKAGES.items():
        if _lacks(package) and not (is_folder and package == "huggingface_hub"):
            found = f"onnx with {model}: {package} is not installed"
            return Check("engine", "fail", found, f"pip install '{extra}'")
    if not is_folder:  # loading it may mean downloading it
        return Check("engine", "ok", f"onnx with {model} from the Hugging Face hub, not loaded")
    try:
        asyncio.run(_opened(load_engine(settings)))
    except (EngineUnavailable, InvalidOption) as error:
        return Check("engine", "fail", f"onnx: {error}", "see docs/onnx.md")
    return Check("engine", "ok", f"onnx with {model}, which loads")


async def _opened(engine: Engine) -> None:
    try:
        await engine.open()
    finally:
        await engine.close()


def _omni_local(settings: Settings) -> Check:
    model = settings.vllm_model
    if why := _no_model("engine", "omni-local", model, "ASR_VLLM_MODEL"):
        return why
    if _lacks("vllm"):
        fix = "pip install 'asr-service[vllm]', or use a server: ASR_ENGINE=omni"
        return Check("engine", "fail", "omni-local: vLLM is not installed", fix)
    try:
        read_arguments(settings.vllm_args)
    except InvalidOption as error:
        return Check("engine", "fail", f"omni-local: {error}", "correct ASR_VLLM_ARGS")
    return Check("engine", "ok", f"omni-local with {model}")


def _aligner(settings: Settings) -> Check:
    name, model = settings.aligner_name, settings.ctc_model
    if name != "ctc":
        return Check("aligner", "ok", name)
    if why := _no_model("aligner", name, model, "ASR_CTC_MODEL"):
        return why
    missing = [package for package in ("torch", "transformers") if _lacks(package)]
    if missing:
        fix = "pip install 'asr-service[ctc]'"
        return Check("aligner", "fail", f"ctc: {' and '.join(missing)} not installed", fix)
    return Check("aligner", "ok", f"ctc with {model}")


def _no_model(check: str, name: str, model: str, setting: str) -> Check | None:
    """Return a failed check if the model is not set, or is no folder's path."""
    if not model:
        return Check(check, "fail", f"{name} has no model", f"set {setting} to its folder or id")
    if model.startswith(("/", ".", "~")) and not Path(model).expanduser().exists():
        return Check(check, "fail", f"{name}: {model} does not exist", f"correct {setting}")
    if Path(model).expanduser().is_file():
        return Check(check, "fail", f"{name}: {model} is a file", f"correct {setting}")
    return None


def _lacks(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def _data_dir(settings: Settings) -> Check:
    folder = settings.data_path.absolute()
    if why := _why_unwritable(folder, *folder.parents):
        fix = "choose another with ASR_DATA_DIR"
        return Check("data dir", "fail", f"{folder} cannot be written: {why}", fix)
    return Check("data dir", "ok", str(folder))


def _database(settings: Settings) -> Check:
    """Check the database of jobs, if it is a file, without changing it."""
    scheme, _, rest = settings.database.partition("://")
    if scheme == "sqlite":
        return _sqlite(Path(rest.removeprefix("/")))
    if importlib.util.find_spec("psycopg") is None:
        fix = "pip install 'asr-service[postgres]'"
        return Check("database", "fail", "PostgreSQL needs psycopg", fix)
    return Check("database", "ok", "PostgreSQL; the service tries to connect at its start")


def _sqlite(path: Path) -> Check:
    if not path.exists():
        return Check("database", "ok", f"{path} does not exist; the service creates it")
    if why := _why_unusable(path):
        fix = "stop the service; restore it from a backup, or move it away with its -wal and -shm"
        return Check("database", "fail", f"{path}: {why}", fix)
    if not os.access(path, os.W_OK):
        fix = "let the user of the service write to it"
        return Check("database", "fail", f"{path} is read-only", fix)
    return Check("database", "ok", str(path))


def _why_unusable(path: Path) -> str | None:
    """Return why SQLite cannot read a database of jobs, or None if it can."""
    # Without a WAL nobody uses the database. SQLite would make a WAL that belongs to our user.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    url = f"{path.absolute().as_uri()}?{mode}"
    try:
        with contextlib.closing(sqlite3.connect(url, uri=True)) as database:
            (result,) = database.execute("PRAGMA quick_check(1)").fetchone()
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, OSError) as error:
        return str(error)
    if result != "ok":
        return f"damaged: {result}"
    if names and "asr_jobs" not in names:
        return "it is the database of another program"
    return None


def _why_unwritable(folder: Path, *parents: Path) -> str | None:
    """Return the system's error for a write into the folder, or None if it works.

    With `parents`, a missing folder is fine, because the service creates it at its first start. The
    nearest existing parent is tried instead.
    """
    try:
        nearest = next((path for path in (folder, *parents) if path.exists()), folder)
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def check_service(settings: Settings) -> Check:
    """Check whether our own service is ready, if it runs."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    url = f"http://{host}:{settings.port}"
    try:
        answer = httpx.get(f"{url}/ready", timeout=QUICK_SECONDS)
    except httpx.ConnectError:
        return Check("service", "ok", f"does not run at {url}")
    except httpx.HTTPError as error:
        fix = "read its log"
        return Check("service", "fail", f"{url}/ready: {type(error).__name__}", fix)
    is_ours = is_this_service(answer)
    if answer.status_code == httpx.codes.NOT_FOUND or (answer.is_success and not is_ours):
        fix = "choose another port with ASR_PORT"
        return Check("service", "warn", f"another server answers at {url}", fix)
    if answer.is_success:
        return Check("service", "ok", f"is ready at {url}")
    return Check("service", "fail", f"is not ready at {url}: {said(answer)}", "read its log")
