"""mmsegmentation's tools/train.py with mmseg_ltmi registered; dist_train.sh also works on CPUs.

All options are mmsegmentation's: --work-dir, --resume, --amp, --cfg-options, --launcher.
"""

import sys

from mmseg_ltmi.utils import run_mmseg_tool

if __name__ == '__main__':
    run_mmseg_tool('train.py', sys.argv[1:])
