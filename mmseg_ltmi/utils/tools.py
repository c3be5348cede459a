"""Runs the tools of the installed mmsegmentation."""

from __future__ import annotations

import copy
import runpy
import sys
from pathlib import Path

import mmseg
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_ltmi.models.segmentors import OperatingPointMixin


def add_cfg_options(arguments: list[str], options: list[str]) -> list[str]:
    """Arguments with more ``--cfg-options``; what the user gave there stays.

    The options go first, so that a user's own value of the same key wins.
    """
    if not options:
        return arguments
    if '--cfg-options' not in arguments:
        return [*arguments, '--cfg-options', *options]
    place = arguments.index('--cfg-options') + 1
    return [*arguments[:place], *options, *arguments[place:]]


SEGMENTORS = {
    'EncoderDecoder': 'LTMIEncoderDecoder',
    'CascadeEncoderDecoder': 'LTMICascadeEncoderDecoder',
}
"""The form with an operating point of mmsegmentation's segmentors."""


def with_operating_point(model: dict) -> dict:
    """A model's config whose segmentor takes an operating point.

    Raises:
        ValueError: a segmentor that takes none.
    """
    model = copy.deepcopy(model)
    model['type'] = SEGMENTORS.get(model['type'], model['type'])
    if not issubclass(MODELS.get(model['type']), OperatingPointMixin):
        raise ValueError(
            f'{model["type"]} takes no operating point: use {" or ".join(SEGMENTORS.values())}, or '
            'derive it from OperatingPointMixin'
        )
    return model


def operating_point_options(
    cfg: Config,
    tau_test: float | None = None,
    per_class: str | None = None,
    operating_point: str | None = None,
) -> list[str]:
    """``--cfg-options`` that set the operating point and the file of per-class rows.

    Segmentors and test-time augmentation of mmsegmentation become those that read an operating
    point, which a checkpoint too may hold.

    Raises:
        ValueError: ``tau_test`` and the config's last head is no LTMI head, or ``operating_point``
            and a segmentor that takes none, or ``per_class`` and no IoU metric.
    """
    options = []
    if cfg.model.type in SEGMENTORS:
        options.append(f'model.type={SEGMENTORS[cfg.model.type]}')
    if cfg.get('tta_model', {}).get('type') == 'SegTTAModel':
        options.append('tta_model.type=LTMISegTTAModel')
    if operating_point is not None:
        with_operating_point(cfg.model)
        options.append(f'model.operating_point={Path(operating_point).resolve()}')
    if tau_test is not None:
        heads, key = cfg.model.decode_head, 'model.decode_head'
        if isinstance(heads, list):
            heads, key = heads[-1], f'{key}.{len(heads) - 1}'
        if not heads.type.startswith('LTMI'):
            raise ValueError(
                f'--tau-test needs an LTMI head, but the config has {heads.type}: make it '
                f"'LTMI{heads.type}' with class_prior=..., or evaluate with LogitAdjustmentSweep"
            )
        options.append(f'{key}.tau_test={tau_test}')
    if per_class is not None:
        found = cfg.test_evaluator
        keyed = {'test_evaluator': found}
        if isinstance(found, list):
            keyed = {f'test_evaluator.{i}': metric for i, metric in enumerate(found)}
        place = next(
            (k for k, m in keyed.items() if m.type in ('LongTailIoUMetric', 'IoUMetric')), None
        )
        if place is None:
            raise ValueError(
                '--per-class needs an IoUMetric or LongTailIoUMetric in test_evaluator, but it has '
                f'{[metric.type for metric in keyed.values()]}'
            )
        options += [
            f'{place}.type=LongTailIoUMetric',
            f'{place}.per_class_file={Path(per_class).resolve()}',
        ]
    return options


def run_mmseg_tool(name: str, arguments: list[str]) -> None:
    """Run ``tools/<name>`` of the installed mmsegmentation in this process.

    Raises:
        FileNotFoundError: mmsegmentation was installed without its tools.
    """
    if not torch.cuda.is_available() and _value_of('--launcher', arguments) == 'pytorch':
        # mmengine would pick a GPU, join by nccl and name the GPU to the model's wrapper. It takes
        # a group that is there as it is, and what the config says of the wrapper.
        torch.distributed.init_process_group('gloo')
        arguments = add_cfg_options(
            arguments,
            [
                'runner_type=CPURunner',
                'model_wrapper_cfg.type=MMDistributedDataParallel',
                'model_wrapper_cfg.broadcast_buffers=False',
                'model_wrapper_cfg.device_ids=None',
            ],
        )
    package = Path(mmseg.__file__).parent
    for folder in (package / '.mim' / 'tools', package.parent / 'tools'):
        if (folder / name).is_file():
            sys.argv = [str(folder / name), *arguments]
            runpy.run_path(sys.argv[0], run_name='__main__')
            return
    raise FileNotFoundError(
        f"mmsegmentation's tools/{name} is not beside {package}: install mmsegmentation as a wheel "
        '(pip install mmsegmentation==1.2.2) or from its repository'
    )


def _value_of(option: str, arguments: list[str]) -> str | None:
    for i, argument in enumerate(arguments):
        if argument.startswith(f'{option}='):
            return argument.split('=', 1)[1]
        if argument == option:
            return arguments[i + 1] if i + 1 < len(arguments) else None
    return None
