import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import pytest

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi import ClassPrior
from mmseg_ltmi.datasets import CamVidDataset, LongTailShapesDataset

PIPELINE = [dict(type='mmseg.LoadAnnotations')]


def shapes(root, **kwargs):
    return LongTailShapesDataset(
        data_root=str(root), **{'num_images': 4, 'size': (48, 64), 'pipeline': PIPELINE, **kwargs}
    )


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in Path(root).rglob('*.png')}


def test_same_arguments_same_images(tmp_path):
    for name in 'ab':
        shapes(tmp_path / name)
    assert files(tmp_path / 'a') == files(tmp_path / 'b') and len(files(tmp_path / 'a')) == 8
    longer = shapes(tmp_path / 'c', num_images=6)
    first = cv2.imread(longer[0]['seg_map_path'].replace('ann', 'img'))
    assert first.shape == (48, 64, 3)
    assert (first == cv2.imread(str(next((tmp_path / 'a').rglob('img/00000.png'))))).all()


def _open(root):
    return len(shapes(root, num_images=20))


def test_two_processes_at_once(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(_open, [tmp_path] * 2)) == [20, 20]
    assert len(list(tmp_path.iterdir())) == 1


def test_splits_differ_and_frequencies_span_three_orders(tmp_path):
    root = tmp_path
    priors = {
        split: ClassPrior.from_dataset(
            shapes(root, split=split, num_images=None, size=(128, 128)), num_workers=2
        )
        for split in ('train', 'test')
    }
    counts = priors['train'].pixel_counts
    assert (counts > 0).all() and (priors['test'].pixel_counts > 0).all()
    assert 700 < counts.max() / counts.min() < 5000
    assert shapes(root, split='val')[0] is not None


def test_bad_split(tmp_path):
    with pytest.raises(ValueError, match="'dev'"):
        shapes(tmp_path, split='dev')


@pytest.mark.skipif('LTMI_CAMVID_ROOT' not in os.environ, reason='needs CamVid')
@pytest.mark.parametrize('split, number', [('train', 367), ('val', 101), ('test', 233)])
def test_camvid(split, number):
    dataset = CamVidDataset(
        data_root=os.environ['LTMI_CAMVID_ROOT'],
        data_prefix=dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}'),
        pipeline=PIPELINE,
    )
    assert len(dataset) == number
    if split == 'train':
        counted = ClassPrior.from_dataset(dataset, num_workers=2)
        published = ClassPrior.load('camvid')
        assert (counted.pixel_counts == published.pixel_counts).all()
        assert (counted.image_counts == published.image_counts).all()
        assert counted.num_ignored == published.num_ignored
        assert counted.classes == published.classes


def test_camvid_holds_out_a_drive(tmp_path):
    names = ['0001TP_1', '0001TP_2', '0006R0_1', '0016E5_1']
    for folder, suffix in (('img', 'jpg'), ('ann', 'png')):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f'{name}.{suffix}').touch()
    options = dict(data_root=str(tmp_path), data_prefix=dict(img_path='img', seg_map_path='ann'))

    def found(sequences):
        dataset = CamVidDataset(pipeline=[], sequences=sequences, **options)
        return [Path(dataset.get_data_info(i)['seg_map_path']).stem for i in range(len(dataset))]

    assert found(None) == names
    assert found(['0016E5', '0001TP']) == [names[0], names[1], names[3]]
    with pytest.raises(ValueError, match=r"no image of \['0009'\] in .*img, which has \['0001TP'"):
        found(['0001TP', '0009'])
    with pytest.raises(ValueError, match=r"such as \['0006R0'\]"):
        found('0006R0')
