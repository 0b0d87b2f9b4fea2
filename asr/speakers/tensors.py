"""Read the tensors of a PyTorch checkpoint without PyTorch, and nothing else.

A checkpoint is a zip archive with a pickle and one file for each storage. A pickle may call any
function, so this unpickler knows only what plain tensors need and refuses everything else.
"""

from __future__ import annotations

import pickle  # with an unpickler that allows tensors only
import zipfile
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr.errors import AsrError

if TYPE_CHECKING:
    from pathlib import Path

_DTYPES: Final = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
}
MAX_BYTES: Final = 1 << 30
"""A checkpoint whose parts are larger when unpacked is refused."""
_DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    NotImplementedError,
)


class _Storage:
    """The type of a storage, as the pickle names it."""

    def __init__(self, name: str) -> None:
        self.dtype = np.dtype(_DTYPES[name])


class _TensorUnpickler(pickle.Unpickler):  # noqa: S301  # it refuses all but tensors
    """Builds dictionaries of tensors.

    Args:
        archive: the checkpoint.
        pickled: the name of the pickle in it.
    """

    def __init__(self, archive: zipfile.ZipFile, pickled: str) -> None:
        super().__init__(archive.open(pickled))
        self._archive = archive
        self._folder = pickled.removesuffix("data.pkl") + "data/"

    def find_class(self, module: str, name: str) -> Any:
        """The few names that tensors need."""
        if module == "torch" and name in _DTYPES:
            return _Storage(name)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage that the pickle refers to."""
        kind, storage, key, *_ = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise pickle.UnpicklingError(f"{kind} is not allowed")
        return np.frombuffer(self._archive.read(f"{self._folder}{key}"), storage.dtype)


def _rebuild(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A copy of the elements of a tensor. Strides beyond the storage are refused."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset < 0 or min((*size, *stride), default=0) < 0 or last >= len(storage):
        raise ValueError("a tensor exceeds its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary by their names.

    Raises:
        AsrError: the file is no such checkpoint, or holds something else than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(it for it in archive.namelist() if it.endswith("data.pkl"))
            if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
                raise ValueError("it is too large")  # reported like other damage
            found = _TensorUnpickler(archive, pickled).load()
    except (*_DAMAGED, StopIteration) as error:
        raise AsrError(f"{path.name} is no checkpoint of tensors: {error}") from error
    return _checked(found, path.name)


def _checked(found: Any, name: str) -> dict[str, np.ndarray]:
    if not isinstance(found, dict) or not all(isinstance(it, np.ndarray) for it in found.values()):
        raise AsrError(f"{name} is no checkpoint of tensors: it holds other things")
    return dict(found)
