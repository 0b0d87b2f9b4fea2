"""How the functions of this package are compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

_OPTIONS: Final = {"error_model": "numpy", "fastmath": {"contract", "nnan", "nsz"}}
"""Fused multiply-add is allowed, and nothing is NaN or -0.0. Sums are not reordered."""


def compiled(signature: Any) -> Callable[[Any], Any]:
    """Compile a function at once, for one signature, or read what was compiled before."""

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(signature, cache=True, **_OPTIONS)(function)
        except RuntimeError:  # no folder is writable, so it is compiled at each start
            return numba.njit(signature, **_OPTIONS)(function)

    return decorate


def inlined(function: Any) -> Any:
    """Compile a function as part of those that call it."""
    return numba.njit(**_OPTIONS)(function)
