"""Lets ``import torchvision`` work beside a CPU build of torch; put this folder on PYTHONPATH.

The registry's torchvision is built for CUDA. Beside a CPU build of torch its operators do not load,
and its import ends with "operator torchvision::nms does not exist". vLLM needs only its
Python code. That code can be imported once the operators are declared, without implementations.
"""

import importlib.abc
import sys

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class DeclareOperators(importlib.abc.MetaPathFinder):
    """Runs before the first import of torchvision and finds no module itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in OPERATORS:
                library.define(name + SIGNATURE)
            torch._asr_declared = library  # keep a reference, or torch drops the declarations


sys.meta_path.insert(0, DeclareOperators())
