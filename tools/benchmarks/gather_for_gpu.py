"""Gathers what a GPU machine without a network lacks for gpu.py: wheels, and CamVid if it is here.

    python tools/benchmarks/gather_for_gpu.py

It is for a machine with Python 3.12, torch for CUDA with Triton, numpy, scipy, matplotlib, OpenCV,
pillow, rich, pyyaml, regex, packaging, pytest and hypothesis. Copy the repository there, with the
folder that this writes, and run the two commands that it prints.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).parents[2]
NEEDED = (
    'mmengine', 'mmcv-lite', 'mmsegmentation', 'addict', 'ftfy', 'platformdirs', 'prettytable',
    'setuptools', 'termcolor', 'wcwidth', 'yapf',
)  # fmt: skip


def pinned(name: str) -> str:
    """With the version that is tested, where one is."""
    lines = [
        line.partition(';')[0].strip()
        for file in sorted((ROOT / 'requirements').glob('*.txt'))
        for line in file.read_text(encoding='utf-8').splitlines()
    ]
    return next((line for line in lines if line.startswith(f'{name}==')), name)


def download(folder: Path, python: str) -> None:
    """Pure-Python wheels; what they depend on is either among them or there."""
    folder.mkdir(parents=True)
    subprocess.run(
        [
            sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary=:all:',
            '--implementation=py', '--abi=none', '--platform=any', f'--python-version={python}',
            f'--dest={folder}', *map(pinned, NEEDED),
        ],
        check=True,
    )  # fmt: skip


def shrink(source: Path, out: Path, width: int) -> None:
    """The data set at another width: labels by the nearest pixel; other files as they are."""
    for file in sorted(source.rglob('*')):
        target = out / file.relative_to(source)
        if file.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        is_image = file.suffix in ('.png', '.jpg')
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) if is_image else None
        if image is None or image.shape[1] <= width:
            shutil.copyfile(file, target)
            continue
        how = cv2.INTER_NEAREST if image.ndim == 2 else cv2.INTER_AREA
        size = (width, round(image.shape[0] * width / image.shape[1]))
        cv2.imwrite(str(target), cv2.resize(image, size, interpolation=how))


def mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu_machine'))
    parser.add_argument('--python', default='3.12', help="the other machine's version")
    parser.add_argument(
        '--camvid', type=Path, default=Path(os.environ.get('LTMI_CAMVID_ROOT', 'data/camvid11'))
    )
    parser.add_argument('--width', type=int, default=240, help='of the images of CamVid')
    parser.add_argument('--limit', type=float, default=60, metavar='MIB')
    args = parser.parse_args()
    shutil.rmtree(args.out / 'wheels', ignore_errors=True)
    shutil.rmtree(args.out / 'camvid11', ignore_errors=True)
    download(args.out / 'wheels', args.python)
    data = ''
    if args.camvid.is_dir():
        shrink(args.camvid, args.out / 'camvid11', args.width)
        data = f'LTMI_CAMVID_ROOT={args.out}/camvid11 '
    size = mib(args.out)
    if size > args.limit:
        raise SystemExit(
            f'{args.out} has {size:.0f} MiB, more than {args.limit:.0f}: take a smaller --width, '
            'or more with --limit'
        )
    print(f'{args.out}: {size:.1f} MiB. On the other machine, in the repository:\n')
    print(
        'python3 -m pip install -q --no-index --no-deps --upgrade --target /tmp/site '
        f'{args.out}/wheels/*.whl'
    )
    print(f'PYTHONPATH=/tmp/site:. {data}python3 tools/benchmarks/gpu.py')


if __name__ == '__main__':
    main()
