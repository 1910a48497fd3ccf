"""A module as a program of ``torch.export``, from which every exported file is made."""

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from vitscope.deploy.backend import Shape, quiet
from vitscope.models.compact import Compacted
from vitscope.models.feed import input_like

INPUT, OUTPUT = "images", "logits"
"""The names of what an exported file takes and returns."""


def trace_program(module: nn.Module, shape: Shape) -> ExportedProgram:
    """The module's forward pass on normalised images of this shape, as a program whose batch may be of any size.

    The images have the type of the module's weights. Raises what ``torch.export`` raises. Cost: one symbolic forward
    pass, some seconds.
    """
    like = input_like(module)
    example = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)  # a batch of 1 would be taken for fixed
    if isinstance(module, Compacted):  # its walk holds the tensors of edits; listed, they would be stored twice
        module = Compacted(module.module, module.anatomy).eval()
    with quiet("torch.export"), torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes={INPUT: {0: Dim("batch")}})
