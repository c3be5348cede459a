"""Subsets, concatenations and repeats, and data sets that cannot be counted."""

import re

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ClassBalancedDataset, RepeatDataset
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.core.priors import (
    ClassCountError,
    ClassPrior,
    count_as_trained,
    count_dataset,
    describe,
)
from mmseg_ltmi.core.priors.dataset_parts import dataset_images
from mmseg_ltmi.core.priors.dataset_wrappers import unwrapped
from mmseg_ltmi.core.priors.resampling import resampling_of


@TRANSFORMS.register_module(force=True)
class OwnLabelLoader:
    """Reads labels, and is no LoadAnnotations."""

    def __call__(self, results):
        results['gt_seg_map'] = cv2.imread(results['seg_map_path'], cv2.IMREAD_UNCHANGED)
        return results


@TRANSFORMS.register_module(force=True)
class LoadAnnotationsOfTest(OwnLabelLoader):
    """The same, and known as a label loader by its name."""


@pytest.fixture
def root(tmp_path):
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    for i in range(4):  # i + 1 pixels of class i
        (tmp_path / 'img' / f'{i}.jpg').touch()
        cv2.imwrite(str(tmp_path / 'ann' / f'{i}.png'), np.full((1, i + 1), i, np.uint8))
    return tmp_path


def build(root, loader='mmseg.OwnLabelLoader', classes=('a', 'b', 'c', 'd'), **kwargs):
    return DATASETS.build(
        dict(
            data_root=str(root),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            metainfo=dict(classes=classes),
            pipeline=[dict(type=loader)],
            **{'type': 'mmseg.BaseSegDataset', **kwargs},
        )
    )


def loaded(root, **kwargs):
    return build(root, 'mmseg.LoadAnnotationsOfTest', **kwargs)


def pixels(dataset, **kwargs):
    return count_dataset(dataset, **kwargs).prior.pixel_counts.tolist()


@pytest.mark.parametrize('workers', [0, 2])
def test_a_subset_counts_its_own_images(root, workers, tmp_path):
    whole = loaded(root)
    cache = tmp_path / 'counts.txt'
    assert pixels(whole, num_workers=workers, cache=cache) == [1, 2, 3, 4]
    for part, expected in (
        (Subset(whole, [3, 1]), [0, 2, 0, 4]),
        (Subset(whole, np.array([1, 1])), [0, 2, 0, 0]),
        (Subset(Subset(whole, [3, 1, 0]), [-1, 0]), [1, 0, 0, 4]),
        (Subset(ConcatDataset([whole, loaded(root)]), [0, 5]), [1, 2, 0, 0]),
        (ConcatDataset([Subset(whole, [0, 1]), Subset(whole, [1, 2])]), [1, 2, 3, 0]),
    ):
        assert pixels(part, num_workers=workers) == expected
        assert pixels(part, cache=cache) == expected
        assert ClassPrior.from_dataset(part).pixel_counts.tolist() == expected
    assert '2 images' in describe(Subset(whole, [3, 1]))
    assert describe(Subset(whole, [3, 1])) != describe(Subset(whole, [3, 2]))


def test_a_subset_of_repeated_images_is_refused(root):
    repeated = DATASETS.build(dict(type='RepeatDataset', times=2, dataset=loaded(root)))
    assert pixels(repeated) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match='a Subset of a RepeatDataset.*take the Subset first'):
        count_dataset(Subset(repeated, [0, 6]))


@pytest.mark.parametrize('wrap', [lambda d: Subset(d, [1, 3]), lambda d: ConcatDataset([d, d])])
def test_as_trained_follows_wrappers_of_torch(root, wrap):
    dataset = wrap(build(root))
    report = count_as_trained(dataset, len(dataset))
    assert report.failures == []
    expected = [sum(i % 4 == c for i in range(8)) * (c + 1) for c in range(4)]
    assert report.prior.pixel_counts.tolist() in ([0, 2, 0, 4], expected)
    (root / 'ann' / '3.png').unlink()
    assert len(count_as_trained(dataset, len(dataset)).failures) in (1, 2)


@pytest.mark.parametrize('workers', [0, 2])
def test_as_trained_needs_no_load_annotations(root, workers):
    dataset = build(root)
    report = count_as_trained(dataset, 8, num_workers=workers)
    assert report.prior.pixel_counts.tolist() == [2, 4, 6, 8]
    with pytest.raises(ValueError, match='no LoadAnnotations.*count_as_trained'):
        count_dataset(dataset)


def test_data_sets_that_cannot_be_counted(root):
    for count in (count_dataset, ClassPrior.from_dataset, lambda d: count_as_trained(d, 1)):
        with pytest.raises(ValueError, match=r"the text 'crack'.* give a list, classes=\['crack'"):
            count(loaded(root, classes='crack'))
        with pytest.raises(ValueError, match='no data set of mmsegmentation.*from_label_files'):
            count(TensorDataset())
        with pytest.raises(ValueError, match='has no images'):
            count(loaded(root, img_suffix='.tif', serialize_data=False))


def test_colour_masks_are_explained_once(root):
    for i in range(30):
        (root / 'img' / f'{i:02}.jpg').touch()
        cv2.imwrite(str(root / 'ann' / f'{i:02}.png'), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ClassCountError) as error:
        ClassPrior.from_dataset(loaded(root))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 and '[30 files: ' in lines[0] and lines[0].endswith(', ...]')
    assert 'a label map has one channel (H, W) with class indices. Convert' in lines[0]
    assert len(count_dataset(loaded(root)).failures) == 30


class Fold:
    """A wrapper of one's own."""

    def __init__(self, chosen, **wrapped):
        self.chosen = chosen
        self.__dict__.update(wrapped)

    def __len__(self):
        return len(self.chosen)


def test_a_wrapper_that_leaves_images_out_is_refused(root):
    dataset = loaded(root)
    assert pixels(Fold(range(4), dataset=dataset)) == [1, 2, 3, 4]  # whatever it does to them
    for fold in (Fold([1], dataset=dataset), Fold([1], datasets=[dataset, dataset])):
        with pytest.raises(ValueError, match='Fold has 1 of the . images.*nothing says which'):
            pixels(fold)


class RepeatOfAny(RepeatDataset):
    """Of a wrapper too, as the registry builds it from configs."""

    def __init__(self, dataset, times):
        self.dataset, self.times, self._ori_len = dataset, times, len(dataset)
        self._fully_initialized = True


def repeat(dataset, times):
    return RepeatOfAny(dataset, times)


def joined(*parts):
    return ConcatDataset(parts)


@pytest.mark.parametrize(
    'wrap, by',
    [
        (lambda a, b: joined(repeat(a, 5), b), 'ConcatDataset(times=5, 1)'),
        (lambda a, b: joined(repeat(repeat(a, 5), 2), repeat(b, 2)), 'ConcatDataset(times=5, 1)'),
        (lambda a, b: joined(joined(repeat(a, 5)), b), 'ConcatDataset(times=5, 1)'),
        (lambda a, b: repeat(joined(repeat(a, 5), b), 2), 'ConcatDataset(times=5, 1)'),
        (lambda a, b: joined(a, a, a, b), 'ConcatDataset(times=3, 1)'),
        (lambda a, b: ConcatDataset([a, a, a, b]), 'ConcatDataset(times=3, 1)'),
        (lambda a, b: Subset(a, [0, 0, 0, 0, 1]), 'Subset(times=*)'),
        (lambda a, b: Subset(joined(a, b), [0, 0, 4]), 'Subset(times=*, *)'),
        (lambda a, b: repeat(Subset(joined(a, b), [0, -8, 4]), 2), 'Subset(times=*, *)'),
        (lambda a, b: Subset(repeat(a, 2), [0, 4, 1]), 'Subset(times=*)'),
        (lambda a, b: Subset(Subset(a, [2, 2]), [0]), ''),
        (
            lambda a, b: ConcatDataset([Subset(a, [0, 1]), Subset(a, [1, 2])]),
            'ConcatDataset(times=*)',
        ),
        (lambda a, b: ConcatDataset([Subset(a, [0, 1]), Subset(a, [2])]), ''),
        (lambda a, b: Subset(joined(a, b), [0, 0, 4, 4]), ''),
        (lambda a, b: repeat(joined(a, b), 5), ''),
        (lambda a, b: joined(repeat(a, 2), repeat(b, 2)), ''),
        (lambda a, b: joined(repeat(a, 4), repeat(repeat(b, 2), 2)), ''),
        (lambda a, b: joined(joined(repeat(a, 2), b), b), ''),
        (lambda a, b: joined(a, a), ''),
    ],
)
def test_images_that_are_repeated_more_often_than_others(root, wrap, by):
    found = resampling_of(wrap(loaded(root), loaded(root)))
    assert re.sub(r'\[[0-9a-f]{8}\]', '*', found) == by


def test_another_draw_is_another_text(root):
    a, b = loaded(root), loaded(root)
    draws = [
        joined(repeat(a, 2), b),
        joined(repeat(a, 20), b),
        joined(joined(repeat(a, 2), b), repeat(b, 5)),
        Subset(a, [0, 0, 1]),
        Subset(a, [0, 0, 0, 1]),
        Subset(a, [0, 0, 2]),
        balanced(0.1),
        balanced(0.2),
    ]
    assert len(set(map(resampling_of, draws))) == len(draws)
    assert resampling_of(balanced(0.1)) == 'OwnBalanced(oversample_thr=0.1)'


class OwnBalanced(ClassBalancedDataset):
    """Draws as the one that it derives from."""


def balanced(threshold):
    return OwnBalanced(BaseDataset(lazy_init=True), threshold, lazy_init=True)


def test_whole_data_sets_are_not_looped_over(root):
    """However many images there are, and however often they are repeated."""

    class Huge(Fold, Dataset):
        def __len__(self):
            raise AssertionError('the images were asked for')

    assert (
        resampling_of(joined_of(repeat_of(Huge([]), 10**12), Huge([])))
        == f'Fold(times={10**12}, 1)'
    )


def joined_of(*parts):
    return Fold([], datasets=list(parts))


def repeat_of(dataset, times):
    return Fold([], dataset=dataset, times=times)


class Named(BaseSegDataset):
    """Has attributes whose names mean something elsewhere."""

    def __init__(self, **kwargs):
        self.dataset, self.datasets, self.indices, self.times = 'kitti', ['kitti'], [1], 3
        self.resampling = 'bilinear'
        super().__init__(**kwargs)


DATASETS.register_module(module=Named, force=True)


def test_attributes_that_only_share_a_name(root):
    """Of data sets, wrappers and transforms of one's own."""
    named = loaded(root, type='mmseg.Named')
    named.pipeline.transforms[0].resampling = 1
    assert pixels(named) == [1, 2, 3, 4] == pixels(Fold(range(4), datasets=['x'], dataset=named))
    assert describe(named).startswith('Named, ')
    assert unwrapped(ConcatDataset([named, named])) == [named, named]
    assert resampling_of(ConcatDataset([named, named])) == ''
    own = Fold(range(4), dataset='kitti')
    assert unwrapped(own) == [own]


def test_items_of_a_subset_that_repeats_are_its_images(root):
    whole = loaded(root)
    assert dataset_images(Subset(whole, [1, 1, 3])) == [(whole, 1), (whole, 1), (whole, 3)]


def test_parts_that_ignore_different_labels(root):
    """A head ignores one label: what is a class in one part is none in another."""
    parts = [loaded(root), loaded(root, ignore_index=0)]
    for order in (parts, parts[::-1]):
        whole = ConcatDataset(order)
        numbers = [part.ignore_index for part in order]
        message = (
            rf'part 0 .BaseSegDataset. has ignore_index={numbers[0]}, part 1 .BaseSegDataset. '
            rf'has ignore_index={numbers[1]}, and one of them is a class.* give the parts'
        )
        for count in (count_dataset, ClassPrior.from_dataset, lambda d: count_as_trained(d, 8)):
            with pytest.raises(ValueError, match=message):
                count(whole)
        assert pixels(whole, ignore_index=0) == [0, 4, 6, 8]  # one for all parts
    other = ConcatDataset([loaded(root), loaded(root, ignore_index=254)])  # no class is either
    assert pixels(other) == [2, 4, 6, 8]
    assert count_as_trained(other, 8).prior.pixel_counts.tolist() == [2, 4, 6, 8]
