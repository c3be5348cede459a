"""Labels that mmsegmentation's LoadAnnotations makes others are refused by every count."""

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import ConcatDataset

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.core.priors import ClassCountError, count_as_trained, count_dataset


@pytest.fixture
def root(tmp_path):
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    return tmp_path


def write(root, name, first, dtype):
    """A label map of two rows: a label, then class 1."""
    (root / f'img/{name}.jpg').touch()
    labels = np.array([[first] * 3, [1] * 3], dtype)
    Image.fromarray(labels).save(root / f'ann/{name}.tif')


def build(root, *transforms):
    return DATASETS.build(
        dict(
            type='mmseg.BaseSegDataset',
            data_root=str(root),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            seg_map_suffix='.tif',
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=[dict(type='mmseg.LoadAnnotations'), *transforms],
        )
    )


def as_trained(dataset, **kwargs):
    return count_as_trained(dataset, len(dataset), **kwargs)


@pytest.mark.parametrize('count', [count_dataset, as_trained])
@pytest.mark.parametrize(
    'label, dtype, kept',
    [
        (7 * 256 + 2, np.uint16, 2),
        (-32768, np.int32, 0),
        (-256, np.int32, 0),
        (-(2**31), np.int32, 0),
        (-2, np.int32, 254),
        (258.0, np.float32, 2),
        (1.5, np.float32, 1),
        (np.nan, np.float32, r'\d+'),
        (np.inf, np.float32, r'\d+'),
    ],
)
def test_a_label_that_becomes_another(root, count, label, dtype, kept):
    write(root, 'a', label, dtype)
    prior, failures = count(build(root))
    ((path, reason),) = failures
    assert prior is None and path.endswith('a.tif')
    with pytest.raises(ValueError, match=rf'a\.tif: it has the label {label}, .* 8 bits, {kept}:'):
        count(build(root), strict=True)
    assert 'number the labels from 0 to 255' in reason


@pytest.mark.parametrize('count', [count_dataset, as_trained])
@pytest.mark.parametrize(
    'label, dtype',
    [
        (255, np.uint8),
        (65535, np.uint16),
        (65535, np.int32),
        (-1, np.int32),
        (255, np.int32),
        (255.0, np.float32),
    ],
)
def test_a_label_of_no_class(root, count, label, dtype):
    write(root, 'a', label, dtype)
    prior, failures = count(build(root))
    assert (prior.pixel_counts.tolist(), prior.num_ignored, failures) == ([0, 3, 0], 3, [])


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('wrap', [lambda d: d, lambda d: ConcatDataset([d, d])])
def test_samples_that_may_be_mixed_of_any_file(root, workers, wrap):
    """Nothing is counted, though one file alone is lost, and no sample may show it."""
    for i in range(40):  # more than a worker takes at once
        write(root, f'{i:02}', 2 if i != 7 else 258, np.uint16)
    crop = dict(type='mmseg.RandomCrop', crop_size=(1, 3))
    report = count_as_trained(wrap(build(root, crop)), 1, num_workers=workers)
    assert report.prior is None
    assert [path[-6:] for path, _ in report.failures] == ['07.tif']
    with pytest.raises(ClassCountError, match='07.tif: it has the label 258'):
        count_as_trained(wrap(build(root)), 1, strict=True)
