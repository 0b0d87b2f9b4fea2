"""How the functions of this package are compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import llvmlite.binding
import numba

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

WIDE_CPUS: Final = frozenset({"amx-tile", "avx512fp16"})
"""CPUs with one of these (from Sapphire Rapids on) keep their clock with vectors of 512 bits.
LLVM may not know the name of such a CPU and then prefers 256 bits."""
_PREFERENCE: Final = "-prefer-256-bit"


def prefer_wide_vectors(host: Mapping[str, bool]) -> None:
    """Let numba use vectors of 512 bits, unless the user has chosen the features of the CPU.

    Args:
        host: the features of this CPU.
    """
    if numba.config.CPU_FEATURES is None and any(host.get(name) for name in WIDE_CPUS):
        numba.config.CPU_FEATURES = _PREFERENCE


prefer_wide_vectors(llvmlite.binding.get_host_cpu_features())

_OPTIONS: Final = {"error_model": "numpy", "fastmath": {"contract", "nnan", "nsz"}}
"""Fused multiply-add is allowed, and nothing is NaN or -0.0. Sums are not reordered."""


def compiled(signature: Any) -> Callable[[Any], Any]:
    """Compile a function for one signature now, or load its compiled code from the cache."""

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(signature, cache=True, **_OPTIONS)(function)
        except Exception:  # noqa: BLE001  # no folder is writable, or a kept file is damaged
            return numba.njit(signature, **_OPTIONS)(function)

    return decorate


def inlined(function: Any) -> Any:
    """Compile a function as part of those that call it."""
    return numba.njit(**_OPTIONS)(function)
