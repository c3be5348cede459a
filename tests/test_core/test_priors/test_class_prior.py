import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.priors import build_class_prior


def test_probabilities_by_hand():
    prior = ClassPrior([6, 3, 1, 0])
    assert torch.allclose(prior.probs(0), torch.tensor([0.6, 0.3, 0.1, 0.0]))
    assert torch.allclose(prior.probs(0.4), torch.tensor([0.46, 0.28, 0.16, 0.1]))
    assert prior.log_probs().isfinite().all() and prior.log_probs(0)[3] == -torch.inf


def test_published():
    facts = [('ade20k', 150, 827), ('cityscapes', 19, 374), ('camvid', 11, 109)]
    for name, classes, ratio in facts:
        prior = ClassPrior.load(name)
        assert prior.num_classes == classes == len(prior.classes)
        assert round(prior.pixel_counts.max() / prior.pixel_counts.min()) == ratio
    assert [len(g) for g in prior.groups()] == [4, 3, 4]
    assert prior.pixel_counts.sum() + prior.num_ignored == 367 * 360 * 480


def test_groups_partition_with_ties_by_index():
    assert ClassPrior([1, 5, 5, 2, 0, 9]).groups() == ((5, 1), (2, 3), (0, 4))


def test_save_and_load(tmp_path):
    prior = ClassPrior([3, 1], ['a', 'b'], [2, 1], 2, 7, 'here')
    prior.save(tmp_path / 'deep' / 'p.json')
    assert ClassPrior.load(tmp_path / 'deep' / 'p.json') == prior
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['p.json']


@pytest.mark.parametrize(
    'counts, message',
    [
        ([1, -1], r'pixel_counts\[1\] is -1'),
        ([1, float('nan')], 'finite'),
        ([0, 0], 'all zero'),
        ([], 'one number per class'),
        (['x'], 'must be numbers'),
    ],
)
def test_bad_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        ClassPrior(counts)


def test_wrong_length_names_both():
    with pytest.raises(ValueError, match='11 classes.*num_classes=19'):
        build_class_prior('camvid', 19)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='ade20k, camvid, cityscapes'):
        ClassPrior.load(tmp_path / 'none.json')
    for text, message in (('{"pixel_c', 'no complete JSON'), ('[1]', 'not a class prior')):
        (tmp_path / 'p.json').write_text(text)
        with pytest.raises(ValueError, match=message):
            ClassPrior.load(tmp_path / 'p.json')


@pytest.mark.skipif('LTMI_CAMVID_ROOT' not in os.environ, reason='needs CamVid')
def test_camvid_counts_are_those_of_the_files():
    cv2 = pytest.importorskip('cv2')
    total = np.zeros(256, int)
    for file in (Path(os.environ['LTMI_CAMVID_ROOT']) / 'ann_dir/train').glob('*.png'):
        total += np.bincount(cv2.imread(str(file), -1).ravel(), minlength=256)
    assert (ClassPrior.load('camvid').pixel_counts == total[:11]).all()
