"""Colour masks become the label maps that mmsegmentation reads."""

import json
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from PIL import Image
from tiny import batch, segmentor

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis.convert_labels import convert_labels
from mmseg_ltmi.cli import main

RED, GREEN, BLACK = [255, 0, 0], [0, 128, 0], [0, 0, 0]


@pytest.fixture
def masks(tmp_path):
    """A mask of two rows: red and green, then black."""
    folder = tmp_path / 'masks' / 'town'
    folder.mkdir(parents=True)
    image = Image.fromarray(np.array([[RED, GREEN], [BLACK, BLACK]], np.uint8))
    image.save(folder / 'a_color.png')
    image.convert('P', palette=Image.Palette.ADAPTIVE).save(folder / 'b_color.png')
    image.convert('RGBA').save(folder / 'c_color.png')
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / 'a_other.png')
    return tmp_path / 'masks'


def test_by_the_command_and_counted(masks, tmp_path, capsys):
    (tmp_path / 'palette.json').write_text(json.dumps({'car': GREEN, 'road': RED}))
    out = tmp_path / 'labels'
    command = ['convert-labels', str(masks), str(out), '--suffix', '_color.png']
    command += ['--palette', str(tmp_path / 'palette.json')]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert 'a_color.png has 1 colours that the palette lacks, most often [0, 0, 0], 2 p' in error
    assert main([*command, '--ignore-others']) == 0
    shown = capsys.readouterr().out
    assert '3 label maps in' in shown and '50.0000 % of the pixels ignored' in shown
    written = sorted(out.rglob('*'))
    assert [p.name for p in written] == ['town', 'a_color.png', 'b_color.png', 'c_color.png']
    for file in written[1:]:
        with Image.open(file) as image:
            assert image.mode == 'L'
            assert np.asarray(image).tolist() == [[1, 0], [255, 255]]
    prior = ClassPrior.from_label_files(written[1:], 2)
    assert prior.pixel_counts.tolist() == [3, 3] and prior.num_ignored == 6
    assert main([*command, '--ignore-others']) == 1
    assert 'exists: name another place or give --force' in capsys.readouterr().err


def test_grey_masks_and_the_colours_of_a_known_data_set(tmp_path):
    for name in ('grey', 'known'):
        (tmp_path / name).mkdir()
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / 'grey/a.png')
    found = convert_labels(tmp_path / 'grey', tmp_path / 'out', [[0] * 3, [255] * 3])
    assert (found.num_files, found.pixels.tolist()) == (1, [1, 1, 0])
    assert np.asarray(Image.open(tmp_path / 'out/a.png')).tolist() == [[0, 1]]
    # Cityscapes' road and bicycle are its first class and its last.
    colours = np.array([[[128, 64, 128], [119, 11, 32]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / 'known/a.bmp')
    convert_labels(tmp_path / 'known', tmp_path / 'out', 'cityscapes', '.bmp')
    assert np.asarray(Image.open(tmp_path / 'out/a.png')).tolist() == [[0, 18]]


@pytest.mark.parametrize(
    'palette, message',
    [
        ('nowhere', 'neither a .json file nor a data set'),
        ([[0, 0, 0], [0, 0]], 'a colour .red, green, blue. of numbers from 0 to 255'),
        ([[0, 0, 256]], 'from 0 to 255'),
        ([[0.5, 0, 0]], 'from 0 to 255'),
        ([], 'for each class'),
        ([RED, GREEN, RED], r'the classes \[0, 2\] the same colour'),
    ],
)
def test_what_is_no_palette(masks, tmp_path, palette, message):
    with pytest.raises(ValueError, match=message):
        convert_labels(masks, tmp_path / 'out', palette)


def test_what_cannot_be_converted(masks, tmp_path):
    with pytest.raises(FileNotFoundError, match='is no folder'):
        convert_labels(tmp_path / 'none', tmp_path / 'out', [RED])
    with pytest.raises(FileNotFoundError, match='no file that ends in .tif'):
        convert_labels(masks, tmp_path / 'out', [RED], '.tif')
    with pytest.raises(ValueError, match='holds the masks'):
        convert_labels(masks, masks, [RED], ignore_others=True)
    with pytest.raises(ValueError, match='lies among them'):
        convert_labels(masks, masks / 'town/out', [RED], ignore_others=True)
    assert not (masks / 'town/out').exists()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(masks / 'town/a_color.bmp')
    with pytest.raises(ValueError, match=r'a_color\.bmp and .*a_color\.png would both be written'):
        convert_labels(masks, tmp_path / 'out', [RED], '', ignore_others=True)
    assert not (tmp_path / 'out').exists()
    wide = Image.fromarray(np.zeros((2, 2), np.uint16))
    wide.save(masks / 'wide.png')
    with pytest.raises(ValueError, match='wide.png cannot be read as an image of 8 bits: .*I;16'):
        convert_labels(masks, tmp_path / 'out', [RED], 'wide.png')


@pytest.mark.parametrize(
    ('suffix', 'channels'), [('.png', 3), ('.png', 4), ('.tif', 3), ('.tif', 4), ('.ppm', 3)]
)
def test_colours_of_16_bits_are_refused(tmp_path, suffix, channels):
    """Pillow would keep the upper byte, 0 for the red of 128."""
    (tmp_path / 'masks').mkdir()
    file = tmp_path / f'masks/deep{suffix}'
    mask = np.full((2, 2, channels), 128, np.uint16)
    cv2.imwrite(str(file), mask)
    palette = [[0, 0, 0], [128, 128, 128]]
    with pytest.raises(ValueError, match=f'deep{suffix} .* it has not 8 bits a'):
        convert_labels(tmp_path / 'masks', tmp_path / 'out', palette, suffix)
    cv2.imwrite(str(file), mask.astype(np.uint8))
    found = convert_labels(tmp_path / 'masks', tmp_path / 'out', palette, suffix)
    assert found.pixels.tolist() == [0, 4, 0]


@pytest.mark.parametrize('highest', [31, 255])
def test_a_text_ppm_has_255_levels(tmp_path, highest):
    (tmp_path / 'masks').mkdir()
    (tmp_path / 'masks/a.ppm').write_text(f'P3 1 1 {highest} 16 16 16')
    (tmp_path / 'masks/b.pbm').write_text('P1 1 1 1')
    convert_labels(tmp_path / 'masks', tmp_path / 'black', [[0, 0, 0]], '.pbm')
    convert = partial(
        convert_labels, tmp_path / 'masks', tmp_path / 'out', [[0, 0, 0], [16, 16, 16]], '.ppm'
    )
    if highest == 255:
        assert convert().pixels.tolist() == [0, 1, 0]
    else:
        with pytest.raises(ValueError, match=r'a\.ppm .* it has not 8 bits a channel'):
            convert()


@pytest.mark.parametrize('padding', [(0, 0, 0, 0), (0, 4, 0, 4)])
def test_a_colour_mask_that_comes_to_the_loss(padding):
    model = MODELS.build(segmentor())
    images, samples = batch(size=32, padding_size=padding)
    for sample in samples:  # as PackSegInputs leaves it
        sample.gt_sem_seg = PixelData(data=torch.zeros(32, 32, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r'target has shape \(2, 32, 32, 3\).*convert-labels'):
        model.loss(images, samples)


def test_what_a_colour_mask_is_told(masks):
    """The error says what a label map is, and what makes one, once for all files."""
    dataset = DATASETS.build(
        dict(
            type='mmseg.BaseSegDataset',
            data_prefix=dict(img_path=str(masks), seg_map_path=str(masks)),
            img_suffix='_color.png',
            seg_map_suffix='_color.png',
            metainfo=dict(classes=('a', 'b')),
            pipeline=[dict(type='mmseg.LoadAnnotations')],
        )
    )
    with pytest.raises(ValueError) as error:
        ClassPrior.from_dataset(dataset)
    first = str(error.value).splitlines()[0]
    assert 'a label map has one channel (H, W) with class indices' in first
    assert 'mmseg-ltmi convert-labels MASKS OUT --palette FILE' in first
