import os
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mmseg_ltmi.datasets.nyuv2 import CLASSES, NYUv2Dataset

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/dataset_converters/nyuv2.py'
VAL = ROOT / 'configs/nyuv2/val.txt'
SCENES = ['kitchen_1', 'kitchen_1', 'office_2', 'café_3', 'café_3', 'bath_4', 'bath_4', 'bath_4']
# Image i is 6 high and 8 wide: grey, a red corner at the top right, class i on the left.
NUMBER, HEIGHT, WIDTH = len(SCENES), 6, 8
GREY, RED = (100, 100, 100), (250, 0, 0)


def picture():
    pixels = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    pixels[:3, 4:] = RED
    return pixels


@pytest.fixture
def official(tmp_path):
    """The official files with few and small images: raw class 894 - c is class c of the 40."""
    folder = tmp_path / 'official'
    folder.mkdir()
    to_40 = np.full((1, 894), 40, np.uint8)
    to_40[0, [894 - c - 1 for c in range(1, 41)]] = range(1, 41)
    savemat(folder / 'classMapping40.mat', {'mapClass': to_40})
    savemat(
        folder / 'splits.mat',
        {'trainNdxs': np.array([[1], [2], [4], [5], [6], [7], [8]]), 'testNdxs': np.array([[3]])},
    )
    labels = np.zeros((NUMBER, HEIGHT, WIDTH), np.uint16)
    for i, label in enumerate(labels):
        label[:, 0] = 894 - (i + 1)  # class i + 1 of the 40
        label[0, 1:5] = [894 - 39, 894 - 40, 1, 894]  # 39, then three times otherprop
    with h5py.File(folder / 'nyu_depth_v2_labeled.mat', 'w') as file:
        file['labels'] = labels.transpose(0, 2, 1)
        file['images'] = np.stack([picture().transpose(2, 1, 0)] * NUMBER)
        for i, scene in enumerate(SCENES):
            file[f'#refs#/{i}'] = np.array([[ord(c)] for c in scene], np.uint16)
        references = [file[f'#refs#/{i}'].ref for i in range(NUMBER)]
        file.create_dataset('scenes', data=[references], dtype=h5py.ref_dtype)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Folders with images img1 to img12, whose left half is of class 1 to 12."""
    folder = tmp_path / 'folders'
    for name in ('images', 'labels'):
        (folder / name).mkdir(parents=True)
    for i in range(1, 13):
        Image.fromarray(picture()).save(folder / f'images/img{i}.png')
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        label[:, :4] = i
        label[0] = [39, 40, 0, 1, 2, 3, 4, 5]
        image = Image.fromarray(label)
        if i % 2:
            image = image.convert('P')
            image.putpalette([value for c in range(256) for value in (c, 255 - c, 7)])
        image.save(folder / f'labels/img{i}.png')
    (folder / 'test.txt').write_text('img2\n\nimg10.png\n')
    return folder


def run(source, *extra):
    command = [sys.executable, TOOL, source, '--out', source.parent / 'out', *extra]
    return subprocess.run(command, capture_output=True, text=True)


def laid_out(source):
    """Names of the images of each split, which are also those of the labels."""
    out = source.parent / 'out'
    found = {}
    for split in ('train', 'val', 'test'):
        names = sorted(file.stem for file in (out / 'img_dir' / split).glob('*.jpg'))
        assert names == sorted(file.stem for file in (out / 'ann_dir' / split).glob('*.png'))
        found[split] = [int(name.removeprefix('nyu_')) for name in names]
    return found


def labels_of(source, split, i):
    return cv2.imread(str(source.parent / f'out/ann_dir/{split}/nyu_{i:04d}.png'), -1)


def test_official_files(official):
    done = run(official, '--val-share', '0')
    assert done.returncode == 0 and 'test: 1 images' in done.stdout, done.stderr
    assert '795 images for train and val' in done.stdout and '--val' in done.stdout
    assert laid_out(official) == {'train': [0, 1, 3, 4, 5, 6, 7], 'val': [], 'test': [2]}
    for split, i in (('train', 0), ('test', 2), ('train', 7)):
        expected = np.full((HEIGHT, WIDTH), 255)
        expected[:, 0] = i
        expected[0, 1] = 38
        assert (labels_of(official, split, i) == expected).all()
    image = cv2.imread(str(official.parent / 'out/img_dir/test/nyu_0002.jpg'))
    assert image.shape == (HEIGHT, WIDTH, 3)
    (blue, _, red), grey = image[0, 7].astype(int), image[5, 0].astype(int)
    assert red > 150 > 100 > blue and np.abs(grey - 100).max() < 25


def test_whole_scenes_validate(official):
    # 3 of the 7 train images; of the scenes with 2, 2 and 3 images that is one or two.
    drawn = set()
    for seed in range(4):
        done = run(official, '--force', '--val-share', '0.43', '--seed', str(seed))
        assert done.returncode == 0, done.stderr
        splits = laid_out(official)
        drawn.add(tuple(splits['val']))
        assert 2 <= len(splits['val']) <= 3 and splits['test'] == [2]
        scenes = {split: {SCENES[i] for i in splits[split]} for split in ('train', 'val')}
        assert not scenes['train'] & scenes['val']
        assert sorted(splits['train'] + splits['val']) == [0, 1, 3, 4, 5, 6, 7]
    assert len(drawn) > 1
    run(official, '--force', '--val-share', '0.43', '--seed', '3')
    assert laid_out(official)['val'] == splits['val']


def test_a_list_validates(official):
    (official / 'val.txt').write_text('nyu_0001\nnyu_0006\n')
    assert run(official, '--val', official / 'val.txt').returncode == 0
    assert laid_out(official)['val'] == [1, 6]
    (official / 'val.txt').write_text('nyu_0002\n')
    assert (
        'nyu_0002, which is a test image'
        in run(official, '--force', '--val', official / 'val.txt').stderr
    )


def test_folders(folders):
    (folders / 'val.txt').write_text('img11\n')
    done = run(folders, '--test', folders / 'test.txt', '--val', folders / 'val.txt')
    assert done.returncode == 0, done.stderr
    # img10 is the tenth, behind img9.
    assert laid_out(folders) == {'train': [0, 2, 3, 4, 5, 6, 7, 8, 11], 'val': [10], 'test': [1, 9]}
    for split, i in (('train', 0), ('test', 9), ('val', 10)):
        expected = np.full((HEIGHT, WIDTH), 255)
        expected[:, :4] = i
        expected[0] = [38, 255, 255, 0, 1, 2, 3, 4]
        assert (labels_of(folders, split, i) == expected).all()


def test_folders_and_the_official_split(folders):
    split = {'trainNdxs': np.array([[i] for i in range(2, 13)]), 'testNdxs': np.array([[1]])}
    savemat(folders / 'splits.mat', split)
    assert 'No images to validate' in run(folders).stdout
    assert laid_out(folders) == {'train': list(range(1, 12)), 'val': [], 'test': [0]}
    (folders / 'images/img3.png').unlink()
    assert 'splits 11 + 1 images, which are not the 11' in run(folders, '--force').stderr


def test_resize(folders):
    done = run(folders, '--test', folders / 'test.txt', '--short-side', '3')
    assert done.returncode == 0, done.stderr
    image = cv2.imread(str(folders.parent / 'out/img_dir/train/nyu_0004.jpg'))
    label = labels_of(folders, 'train', 4)
    assert image.shape == (3, 4, 3) and label.shape == (3, 4)
    assert set(np.unique(label)) <= {0, 1, 2, 3, 4, 38, 255}  # none in between
    assert (label[1:] == [4, 4, 255, 255]).all()


def test_an_existing_folder_is_replaced_only_by_force(folders):
    assert run(folders, '--test', folders / 'test.txt').returncode == 0
    (folders / 'test.txt').write_text('img1\n')
    assert 'give --force' in run(folders, '--test', folders / 'test.txt').stderr
    assert laid_out(folders)['test'] == [1, 9]
    assert run(folders, '--test', folders / 'test.txt', '--force').returncode == 0
    # No image of the earlier split is left.
    assert laid_out(folders) == {'train': list(range(1, 12)), 'val': [], 'test': [0]}


def test_the_source_is_not_replaced(folders):
    assert run(folders, '--test', folders / 'test.txt').returncode == 0
    source = folders.parent / 'out'
    given = ['--images', 'img_dir/train', '--labels', 'ann_dir/train', '--force']
    assert 'it would be replaced' in run(source, *given, '--test', folders / 'test.txt').stderr
    assert len(laid_out(folders)['train']) == 10


def test_missing_files(official, folders):
    assert 'has neither nyu_depth_v2_labeled.mat nor the folders' in run(folders.parent).stderr
    assert 'splits.mat is missing' in run(folders).stderr
    (official / 'classMapping40.mat').rename(official / 'mapping.mat')
    error = run(official).stderr
    assert 'as --mapping' in error and 'github.com/' in error
    assert run(official, '--mapping', official / 'mapping.mat').returncode == 0
    (folders / 'labels/img4.png').unlink()
    assert 'has no label map' in run(folders, '--force').stderr


def test_files_that_are_something_else(official, folders):
    listed = ['--test', folders / 'test.txt', '--force']
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(folders / 'labels/img4.png')
    assert 'img4.png must be one channel with labels 0..40' in run(folders, *listed).stderr
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folders / 'labels/img4.png')
    assert 'img4 is (6, 8), its labels (2, 2)' in run(folders, *listed).stderr
    (folders / 'labels/img4.png').write_text('no image')
    assert 'img4.png cannot be read as an image' in run(folders, *listed).stderr
    (folders / 'test.txt').write_text('img77\nimg1\n')
    assert 'lists img77 (1 such)' in run(folders, *listed).stderr

    savemat(official / 'classMapping40.mat', {'mapClass': np.ones((1, 13))})
    assert '894 numbers in 0..40' in run(official, '--force').stderr
    (official / 'splits.mat').write_text('no splits')
    (official / 'classMapping40.mat').write_text('no mapping')
    assert 'cannot be read as a .mat file with mapClass' in run(official, '--force').stderr
    (official / 'nyu_depth_v2_labeled.mat').write_text('no data')
    savemat(official / 'classMapping40.mat', {'mapClass': np.ones((1, 894))})
    assert 'cannot be read as nyu_depth_v2_labeled.mat' in run(official, '--force').stderr


def test_without_h5py(official, tmp_path):
    (tmp_path / 'h5py.py').write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, TOOL, official, '--out', tmp_path / 'out'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    )
    assert done.returncode == 1 and 'pip install h5py' in done.stderr


def test_the_order_is_the_official_one():
    official = (
        'wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, '
        'blinds, desk, shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, '
        'books, refridgerator, television, paper, towel, shower curtain, box, whiteboard, person, '
        'night stand, toilet, sink, lamp, bathtub, bag, otherstructure, otherfurniture, otherprop'
    ).split(', ')
    assert len(official) == 40 and official.index('refridgerator') == 23
    official[23] = 'refrigerator'  # as it is spelt elsewhere
    assert tuple(official[:39]) == CLASSES == NYUv2Dataset.METAINFO['classes']


@pytest.mark.skipif('LTMI_NYU_ROOT' not in os.environ, reason='needs NYUv2')
def test_the_split_of_the_experiments():
    files = Path(os.environ['LTMI_NYU_ROOT'], 'img_dir/val').glob('*.jpg')
    assert VAL.read_text().split() == sorted(file.stem for file in files)
