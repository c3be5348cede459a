"""Whether a forward pass is of a step of training, which alone leaves something behind.

And whether it is being compiled.
"""

from __future__ import annotations

import torch
from torch import nn

is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)  # torch 2.1 has none


def is_training_step(module: nn.Module) -> bool:
    """Whether the module trains: in training mode, where gradients are computed.

    A loss is computed elsewhere too: of the validation images, or by OHEM, which looks at the loss
    of each pixel first. That must not change what training goes on with.
    """
    return module.training and torch.is_grad_enabled()
