import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi import ClassPrior
from mmseg_ltmi.datasets import CamVidDataset, LongTailShapesDataset, NYUv2Dataset

CONFIGS = Path(__file__).parents[2] / 'configs'
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


@pytest.mark.parametrize(
    ('kind', 'split', 'number'),
    [
        (CamVidDataset, 'train', 367),
        (CamVidDataset, 'val', 101),
        (CamVidDataset, 'test', 233),
        (NYUv2Dataset, 'train', 678),
        (NYUv2Dataset, 'val', 117),
        (NYUv2Dataset, 'test', 654),
    ],
)
def test_converted_files(kind, split, number):
    if kind.ROOT_VARIABLE not in os.environ:
        pytest.skip(f'needs {kind.ROOT_VARIABLE}')
    dataset = kind(
        data_root=os.environ[kind.ROOT_VARIABLE],
        data_prefix=dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}'),
        pipeline=PIPELINE,
    )
    assert len(dataset) == number
    classes = len(kind.METAINFO['classes'])
    for i in (0, number // 2, number - 1):
        label = dataset[i]['gt_seg_map']
        assert cv2.imread(dataset[i]['img_path']).shape == (*label.shape, 3)
        assert set(np.unique(label)) <= {*range(classes), 255}
        counted = ClassPrior.from_label_files([dataset[i]['seg_map_path']], num_classes=classes)
        counts = np.bincount(label.ravel(), minlength=256)
        assert (counted.pixel_counts == counts[:classes]).all()
        assert counted.num_ignored == counts[255]
    if split == 'train':
        counted = ClassPrior.from_dataset(dataset, num_workers=2)
        published = ClassPrior.load(kind.CONVERTER.removesuffix('.py'))
        assert (counted.pixel_counts == published.pixel_counts).all()
        assert (counted.image_counts == published.image_counts).all()
        assert counted.num_ignored == published.num_ignored
        assert counted.classes == published.classes


def test_nyuv2_names_and_colours():
    classes, palette = (NYUv2Dataset.METAINFO[key] for key in ('classes', 'palette'))
    assert len(classes) == len(set(classes)) == len(palette) == 39
    assert len({tuple(colour) for colour in palette}) == 39
    # Pascal VOC's colours of 1, 2, 3 and 38; 0 is its background.
    assert palette[:3] == [[128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[37] == [0, 128, 192]
    assert (classes[0], classes[38]) == ('wall', 'otherfurniture')


@pytest.mark.parametrize('file', sorted((CONFIGS / 'nyuv2').glob('*.py')), ids=lambda f: f.stem)
def test_nyuv2_configs_read_what_the_converter_lays_out(file, tmp_path, monkeypatch):
    label = np.arange(256 * 344, dtype=np.uint16).reshape(256, 344) % 40
    label[label == 39] = 255
    for split in ('train', 'val', 'test'):
        for folder, suffix, pixels in (('img', 'jpg', label % 250), ('ann', 'png', label)):
            (tmp_path / f'{folder}_dir' / split).mkdir(parents=True)
            name = str(tmp_path / f'{folder}_dir' / split / f'nyu_0000.{suffix}')
            cv2.imwrite(name, pixels.astype(np.uint8))
    monkeypatch.setenv('LTMI_NYU_ROOT', str(tmp_path))
    cfg = Config.fromfile(file)
    sizes = {}
    for split in ('train', 'val', 'test'):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert len(dataset) == 1 and f'{split}/nyu_0000.jpg' in dataset.get_data_info(0)['img_path']
        read = dataset[0]['data_samples'].gt_sem_seg.data.numpy()
        sizes[split] = read.shape
        assert set(np.unique(read)) <= {*range(39), 255}
    # An image may be scaled to less than a crop, which the batch is then padded to.
    pipeline = {step['type']: step for step in cfg.train_dataloader.dataset.pipeline}
    resize, crop = pipeline['RandomResize'], pipeline['RandomCrop']['crop_size']
    least = [resize['ratio_range'][0] * side for side in reversed(resize['scale'])]
    for side, smallest, largest in zip(sizes['train'][1:], least, crop, strict=True):
        assert min(smallest, largest) - 2 <= side <= largest
    assert sizes['val'] == sizes['test'] == (1, 256, 344)
    assert (read[0] == label).all()


@pytest.mark.parametrize('kind', [CamVidDataset, NYUv2Dataset])
def test_a_set_that_is_not_there_says_how_to_get_it(kind, tmp_path, monkeypatch):
    (tmp_path / 'img').mkdir()
    variable = kind.ROOT_VARIABLE
    for value, said in ((None, 'is not set'), ('/nowhere', "is '/nowhere'")):
        for folder in ('img', 'none'):
            monkeypatch.delenv(variable, raising=False)
            if value:
                monkeypatch.setenv(variable, value)
            with pytest.raises(FileNotFoundError) as error:
                kind(data_root=str(tmp_path), data_prefix=dict(img_path=folder))
            text = str(error.value)
            name = kind.__name__.removesuffix('Dataset')
            assert f'{name} has no .jpg image in {tmp_path}/{folder}.' in text
            assert f'{variable}, which {said}' in text
            # The converter that it names is there, seen from where one is.
            assert Path(text.split('python ')[1].split(' SOURCE')[0]).is_file()


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
