"""The inner loops of the aligner, compiled by numba. They are optional.

`noise` removes noise from spectra, `mixing` computes the likelihoods of senones, and `search`
searches lattices. The modules above this package compute the same with numpy if numba is missing,
in several times the CPU time.

Importing one of them compiles, once for each kind of CPU and each version of the file.
numba keeps the result in ``__pycache__`` or in the user's cache folder. So the template process
imports them before it forks, and the main process never does (`load`).
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

logger = logging.getLogger(__name__)


@functools.cache
def load(name: str) -> ModuleType | None:
    """Import and compile a module of this package; None if numba does not work here."""
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except Exception as error:  # noqa: BLE001  # numba or its compiler fails on this machine
        logger.warning("the aligner needs several times the CPU time without numba: %s", error)
        return None
