"""LongTailShapes drawn to files by the core, which its data set of mmsegmentation only adapts."""

import os

import cv2
import numpy as np
import pytest

from mmseg_ltmi.core.shapes import CLASSES, NAMES, draw, draw_split
from mmseg_ltmi.datasets import LongTailShapesDataset


def test_files_of_a_split(tmp_path):
    folder = draw_split(tmp_path / 'new' / 'root', 'val', num_images=3, size=(24, 32), seed=5)
    assert folder == tmp_path / 'new' / 'root' / 'v1-seed5-24x32-val-3'
    assert [folder] == list(folder.parent.iterdir())
    for i in range(3):
        # The generator of an image: of the seed, the split and the number of the image.
        image, label = draw(np.random.default_rng([5, 1, i]), 24, 32)
        assert image.shape == (24, 32, 3) and label.shape == (24, 32)
        assert label.max() < len(NAMES) == len(CLASSES) + 1
        for sub, drawn in (('img', image), ('ann', label)):
            file = folder / sub / f'{i:05d}.png'
            assert (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) == drawn).all()
    assert len(list(folder.rglob('*.png'))) == 6
    assert folder.stat().st_mode & 0o777 == 0o755


def test_what_is_drawn_stays(tmp_path):
    options = dict(split='test', num_images=2, size=(16, 16))
    folder = draw_split(tmp_path, **options)
    before = {file: os.stat(file).st_mtime_ns for file in folder.rglob('*')}
    dataset = LongTailShapesDataset(data_root=str(tmp_path), pipeline=[], **options)
    assert draw_split(tmp_path, **options) == folder
    assert dataset.get_data_info(1)['img_path'] == str(folder / 'img' / '00001.png')
    assert dataset.metainfo['classes'] == NAMES
    assert before == {file: os.stat(file).st_mtime_ns for file in folder.rglob('*')}


def test_a_failure_leaves_no_part(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError('no space left')

    monkeypatch.setattr(cv2, 'imwrite', fail)
    with pytest.raises(OSError, match='no space left'):
        draw_split(tmp_path, num_images=1)
    assert not list(tmp_path.iterdir())


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"'dev': use one of \['train', 'val', 'test'\]"):
        draw_split(tmp_path, 'dev')
    with pytest.raises(ValueError, match='num_images of LongTailShapes is 0'):
        draw_split(tmp_path, num_images=0)
