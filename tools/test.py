"""mmsegmentation's tools/test.py with mmseg_ltmi registered, and two options more.

All other options are mmsegmentation's: --work-dir, --out, --show, --show-dir, --tta, --cfg-options,
--launcher.
"""

import argparse

from mmseg_ltmi.utils import add_cfg_options, run_mmseg_tool

if __name__ == '__main__':
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--tau-test', type=float, help='operating point: 0 natural, 1 balanced')
    parser.add_argument('--per-class', help='write a row per class to this .json or .csv file')
    ours, arguments = parser.parse_known_args()
    if '-h' in arguments or '--help' in arguments:
        print(f'{__doc__}\n{parser.format_help()}\nmmsegmentation:\n')
    options = []
    if ours.tau_test is not None:
        options.append(f'model.decode_head.tau_test={ours.tau_test}')
    if ours.per_class is not None:
        options += [
            'test_evaluator.type=LongTailIoUMetric',
            f'test_evaluator.per_class_file={ours.per_class}',
        ]
    run_mmseg_tool('test.py', add_cfg_options(arguments, options))
