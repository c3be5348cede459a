import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/camvid.py'


@pytest.fixture
def source(tmp_path):
    for split in ('train', 'val', 'test'):
        for folder in (split, f'{split}annot'):
            (tmp_path / 'CamVid' / folder).mkdir(parents=True)
        image = np.full((4, 6, 3), 100, np.uint8)
        label = np.arange(24, dtype=np.uint8).reshape(4, 6) % 12
        cv2.imwrite(str(tmp_path / 'CamVid' / split / 'a.png'), image)
        cv2.imwrite(str(tmp_path / 'CamVid' / f'{split}annot' / 'a.png'), label)
    return tmp_path / 'CamVid'


def run(source, *extra):
    command = [sys.executable, TOOL, source, '--out', source.parent / 'out', *extra]
    return subprocess.run(command, capture_output=True, text=True)


def test_convert(source):
    done = run(source)
    assert done.returncode == 0 and 'train: 1 images, but CamVid has 367' in done.stdout
    label = cv2.imread(str(source.parent / 'out/ann_dir/val/a.png'), -1)
    assert sorted(np.unique(label)) == [*range(11), 255] and (label == 255).sum() == 2
    image = cv2.imread(str(source.parent / 'out/img_dir/test/a.jpg'))
    assert np.abs(image.astype(int) - 100).max() <= 3
    assert 'give --force' in run(source).stderr and run(source, '--force').returncode == 0


def test_bad_input(source):
    cv2.imwrite(str(source / 'valannot/a.png'), np.full((4, 6), 12, np.uint8))
    assert 'labels 0..11' in run(source).stderr
    (source / 'valannot/a.png').unlink()
    assert 'no label map' in run(source, '--force').stderr
    assert 'no folder train, trainannot' in run(source.parent / 'none', '--force').stderr


def test_a_file_that_cannot_be_written(source):
    (source.parent / 'out/img_dir/train/a.jpg').mkdir(parents=True)
    done = run(source, '--force')
    assert done.returncode == 1 and 'img_dir/train/a.jpg cannot be written' in done.stderr
