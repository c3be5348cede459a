"""Label files counted without OpenMMLab, with the result that its data sets give."""

import subprocess
import sys

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.core.priors import ClassCountError, ClassPrior

CLASSES = ('a', 'b', 'c')


def write(path, labels, palette=False):
    image = Image.fromarray(np.asarray(labels, np.uint8))
    if palette:  # far from the indices, and two of them alike
        image.putpalette([(c // 2 * 90) % 256 for c in range(256) for _ in range(3)])
    image.save(path)
    return path


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    for i in range(40):  # more than a batch
        (tmp_path / 'img' / f'{i:02}.jpg').touch()
        labels = rng.choice([0, 1, 2, 3, 255], (5, 7))
        write(tmp_path / 'ann' / f'{i:02}.png', labels, palette=i % 2)
    return tmp_path


def dataset(root, classes, reduce_zero_label, label_map):
    built = DATASETS.build(
        dict(
            type='mmseg.BaseSegDataset',
            data_root=str(root),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            metainfo=dict(classes=classes),
            reduce_zero_label=reduce_zero_label,
            pipeline=[dict(type='mmseg.LoadAnnotations')],
            lazy_init=True,
        )
    )
    built.label_map = label_map
    built.full_init()
    return built


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(
    'reduce_zero_label, label_map',
    [(False, None), (True, None), (False, {3: 255, 0: 1}), (True, {0: 2, 2: 255, 255: 0})],
)
def test_as_the_data_set_counts(root, reduce_zero_label, label_map, workers):
    classes = ('a', 'b', 'c', 'd') if not reduce_zero_label else CLASSES
    expected = ClassPrior.from_dataset(dataset(root, classes, reduce_zero_label, label_map))
    prior = ClassPrior.from_label_files(
        sorted((root / 'ann').iterdir()),
        len(classes),
        classes,
        reduce_zero_label=reduce_zero_label,
        label_map=label_map,
        num_workers=workers,
    )
    assert 'counted over 40 label files in' in prior.source
    assert {**prior.to_dict(), 'source': ''} == {**expected.to_dict(), 'source': ''}


def test_npy_and_wide_labels(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([[0, 1], [1, 300]], np.int64))
    Image.fromarray(np.array([[299, 65535]], np.uint16)).save(tmp_path / 'b.png')
    files = [tmp_path / 'a.npy', str(tmp_path / 'b.png')]
    prior = ClassPrior.from_label_files(files, 301, ignore_index=65535)
    counts = prior.pixel_counts
    assert (counts[[0, 1, 299, 300]].tolist(), counts.sum()) == ([1, 2, 1, 1], 5)
    assert (prior.num_ignored, prior.num_images, prior.classes) == (1, 2, None)
    with pytest.raises(ClassCountError, match=r'a.npy: it has the label 300, but reduce_zero'):
        ClassPrior.from_label_files(files[:1], 3, reduce_zero_label=True)


@pytest.mark.parametrize(
    'labels, message',
    [
        (
            np.zeros((2, 2, 3), np.uint8),
            'one channel .* Convert colour masks once: mmseg-ltmi convert-labels',
        ),
        (np.zeros(4, np.uint8), 'one channel'),
        (np.full((2, 2), 0.5), 'float64: save whole numbers'),
        (np.full((2, 2), -1), 'label -1 is less than 0'),
        (np.full((2, 2), 7), r'labels 7 \(4 pixels\) are neither .*: check reduce_zero_label'),
        (np.arange(256).reshape(16, 16), r'12 \(1 pixels\) and 242 more are neither'),
        (np.array([[{}]]), 'cannot be read'),
    ],
)
def test_what_is_no_label_map(tmp_path, labels, message):
    np.save(tmp_path / 'bad.npy', labels)
    with pytest.raises(ClassCountError, match=f'bad.npy: .*{message}'):
        ClassPrior.from_label_files([tmp_path / 'bad.npy'], 3)


@pytest.mark.parametrize('workers', [0, 1])
def test_files_that_cannot_be_counted(tmp_path, workers):
    good = write(tmp_path / 'good.png', [[0, 1]])
    (tmp_path / 'text.png').write_text('no image')
    bad = [tmp_path / 'text.png', tmp_path / 'none.png']
    bad += [write(tmp_path / f'{i:02}.png', np.zeros((2, 2, 3))) for i in range(30)]
    bad += [write(tmp_path / f'label{i:02}.png', [[i + 2]]) for i in range(30)]
    with pytest.raises(ClassCountError) as error:
        ClassPrior.from_label_files([good, *bad], 2, num_workers=workers)
    lines = str(error.value).splitlines()
    # A line for each of 20 reasons: two files, the colour masks and 17 of the others.
    assert len(lines) == 21 and lines[-1] == '... and 13 more'
    assert 'text.png: cannot be read (UnidentifiedImageError' in lines[0]
    assert 'none.png: cannot be read (FileNotFoundError' in lines[1]
    assert '00.png: its shape is (2, 2, 3), but a label map has one channel' in lines[2]
    names = ', '.join(str(tmp_path / f'{i:02}.png') for i in range(3))
    assert lines[2].endswith(f'[30 files: {names}, ...]')
    assert 'label00.png: labels 2 (1 pixels)' in lines[3] and lines[3].endswith('of the data set')
    with pytest.raises(ClassCountError, match='no pixel .* has a class'):
        ClassPrior.from_label_files([write(tmp_path / 'void.png', [[255]])], 2)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(classes='ab'), "list of num_classes=2 names, but is 'ab'"),
        (dict(classes=['a']), 'list of num_classes=2 names'),
        (dict(paths='folder/a.png'), 'paths is one path'),
        (dict(paths=[]), 'paths is empty'),
        (dict(label_map={0: 300}), 'from 0 to 255'),
    ],
)
def test_arguments_that_cannot_be_meant(change, message):
    with pytest.raises(ValueError, match=message):
        ClassPrior.from_label_files(**{'paths': ['a.png'], 'num_classes': 2, **change})


def test_without_pillow_or_opencv(tmp_path, monkeypatch):
    png = write(tmp_path / 'a.png', [[0, 1]])
    np.save(tmp_path / 'a.npy', np.array([[0, 1]], np.uint8))
    monkeypatch.setitem(sys.modules, 'cv2', None)
    assert ClassPrior.from_label_files([png], 2).pixel_counts.tolist() == [1, 1]
    for module in ('PIL', 'PIL.Image'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match='pip install pillow'):
        ClassPrior.from_label_files([png], 2)
    npy = [tmp_path / 'a.npy']
    assert ClassPrior.from_label_files(npy, 2, num_workers=1).pixel_counts.tolist() == [1, 1]


def test_only_torch_and_numpy_are_imported():
    code = (
        'import sys, mmseg_ltmi.core.priors\n'
        "names = {'mmengine', 'mmcv', 'mmseg', 'cv2', 'PIL', 'rich', 'mmseg_ltmi.models'}\n"
        'print(sorted(names & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr
