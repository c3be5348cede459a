"""mmsegmentation's tools/train.py with mmseg_ltmi registered; it also trains without a GPU.

All options are mmsegmentation's: --work-dir, --resume, --amp, --cfg-options, --launcher.
"""

import sys

import torch

from mmseg_ltmi.utils import add_cfg_options, run_mmseg_tool

if __name__ == '__main__':
    arguments = sys.argv[1:]
    if not torch.cuda.is_available():
        arguments = add_cfg_options(arguments, ['runner_type=CPURunner'])
    run_mmseg_tool('train.py', arguments)
