"""mmsegmentation's tools/test.py with mmseg_ltmi registered, and three options more.

All other options are mmsegmentation's: --work-dir, --out, --show, --show-dir, --tta, --cfg-options,
--launcher.
"""

import argparse

from mmengine.config import Config

from mmseg_ltmi.utils import add_cfg_options, operating_point_options, run_mmseg_tool

if __name__ == '__main__':
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--tau-test', type=float, help='operating point: 0 natural, 1 balanced')
    parser.add_argument('--operating-point', help='file of tools/choose_operating_point.py')
    parser.add_argument('--per-class', help='write a row per class to this .json or .csv file')
    ours, arguments = parser.parse_known_args()
    if '-h' in arguments or '--help' in arguments:
        print(f'{__doc__}\n{parser.format_help()}\nmmsegmentation:\n')
    config = next((a for a in arguments if a.endswith('.py')), None)
    if config is not None:
        options = operating_point_options(Config.fromfile(config), **vars(ours))
        arguments = add_cfg_options(arguments, options)
    run_mmseg_tool('test.py', arguments)
