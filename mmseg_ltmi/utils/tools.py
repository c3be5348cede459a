"""Runs the tools of the installed mmsegmentation."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import mmseg
import torch


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
