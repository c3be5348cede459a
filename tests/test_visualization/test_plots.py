"""What pictures show: names, groups, intervals and the run that is compared with."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.visualization import (
    TailImage,
    draw_tail_page,
    plot_class_differences,
    plot_class_prior,
    plot_embeddings,
    plot_operating_points,
    plot_per_class_iou,
    plot_queue_use,
)
from mmseg_ltmi.visualization.canvas import FORMATS, colours

HOSTILE = [
    '$x_1',
    '_hidden',
    '[red]',
    '50 %',
    'a|b',
    'new\nline',
    'дом',
    'x' * 300,
    '$a$',
    '^{',
    '\\',
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved; a warning of matplotlib's is an error."""
    saved, save = [], Figure.savefig

    def keep(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        saved.append(figure)

    monkeypatch.setattr(Figure, 'savefig', keep)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield saved


def prior_of(number):
    names = (HOSTILE * (number // len(HOSTILE) + 1))[:number]
    return ClassPrior([2.0**-c for c in range(number)], names)


def rows_of(prior, iou, half=float('nan')):
    group = {c: name for name, of in prior.groups()._asdict().items() for c in of}
    return [
        {'class': n, 'group': group[c], 'prior': float(prior.probs(0)[c]), 'IoU': iou(c)}
        | {'IoU_half': half}
        for c, n in enumerate(prior.names)
    ]


def texts(figure):
    axes = figure.axes[0]
    return [t.get_text() for t in axes.texts], [t.get_text() for t in axes.get_yticklabels()]


@pytest.mark.parametrize('number', (1, 2, 11, 150))
def test_both_class_charts(figures, tmp_path, number):
    prior = prior_of(number)
    runs = {
        '_ce': rows_of(prior, lambda c: 90 - c / 2, 2.0),
        'ltmi$': rows_of(prior, lambda c: 90 + c / 20 if c else float('nan'), 3.0),
    }
    plot_per_class_iou(runs, tmp_path / 'new' / 'iou.png')
    changes = {'ltmi$': rows_of(prior, lambda c: c - 5.0, 1.5)}
    plot_class_differences(changes, tmp_path / 'difference.png', '_ce')
    for figure, names in zip(figures, (['_ce', 'ltmi$'], ['ltmi$']), strict=True):
        notes, ticks = texts(figure)
        groups = [name for name, of in prior.groups()._asdict().items() if of]
        assert notes == groups and len(ticks) == number
        assert ticks[0].startswith('$x_1  ') and all('\n' not in t for t in ticks)
        assert max(map(len, ticks)) < 50
        legend = [t.get_text().strip() for t in figure.legends[0].get_texts()]
        assert legend == names
        axes = figure.axes[0]
        assert len(axes.containers) == len(names) and all(c.has_xerr for c in axes.containers)
        assert 'mean and 95 % interval over seeds' in axes.get_xlabel()
    iou, difference = (figure.axes[0] for figure in figures)
    assert 'minus that of  _ce [%]' in difference.get_xlabel()
    points = difference.containers[0].lines[0]
    assert points.get_xdata().tolist() == [c - 5.0 for c in range(number)]
    bars = difference.containers[0].lines[2][0].get_segments()
    assert bars[0][:, 0].tolist() == [-6.5, -3.5]
    # The run keeps its style, which is no pale grey.
    first, second = (container.lines[0].get_color() for container in iou.containers)
    assert second == points.get_color() and {first, second} == {'#000000', '#0072B2'}
    with Image.open(tmp_path / 'difference.png') as image:
        assert image.height / number >= 20  # room for each name


def test_a_class_without_a_label_is_named(figures, tmp_path):
    prior = ClassPrior([5, 3, 2])
    rows = rows_of(prior, lambda c: None if c == 1 else 50.0)
    plot_per_class_iou({'run': rows}, tmp_path / 'iou.png')
    notes, _ = texts(figures[0])
    assert notes == ['head', 'medium', 'tail', 'no label']
    assert figures[0].axes[0].get_xlabel() == 'IoU [%]'  # one seed has no interval


@pytest.mark.parametrize('number', (1, 2, 11, 150))
def test_prior(figures, tmp_path, number):
    counts = [1.3 ** (number - c) for c in range(number)]
    if number == 11:
        counts[10] = 0
    plot_class_prior(ClassPrior(counts, prior_of(number).names), tmp_path / 'prior.png')
    notes, ticks = texts(figures[0])
    assert ('no pixel' in notes) == (number == 11) and len(ticks) == number
    assert not any('$' in t.get_text() for t in figures[0].axes[0].get_xticklabels())


def curve(shift):
    return [{'mIoU': 50 + t - shift, 'mIoU_tail': t * shift, 'mAcc': 70.0} for t in range(5)]


def test_the_suffix_says_the_format(tmp_path):
    png = b'\x89PNG'
    begin = {'.png': png, '.jpg': b'\xff\xd8', '.pdf': b'%PDF', '.SVG': b'<?xml', '': png}
    for suffix, expected in begin.items():
        file = tmp_path / f'prior{suffix}'
        plot_class_prior(prior_of(3), file)
        assert file.read_bytes().startswith(expected)
    with pytest.raises(ValueError, match=r'prior.doc: .* cannot be drawn as .doc. .*\.png'):
        plot_class_prior(prior_of(3), tmp_path / 'prior.doc')
    for form in FORMATS:
        plot_class_prior(prior_of(3), tmp_path / f'any.{form}')


def test_equal_splits_are_both_seen(figures, tmp_path):
    taus = [0, 0.25, 0.5, 0.75, 1]
    for report in (curve(1), None):
        plot_operating_points(taus, curve(1), report, curve(1)[2], tmp_path / 'curves.png')
    both, one = figures
    assert [axes.get_title() for axes in both.axes] == ['mIoU [%]', 'tail mIoU [%]', 'mAcc [%]']
    judged, chosen, *_ = both.axes[0].lines
    assert judged.get_linewidth() > 2 * chosen.get_linewidth()
    assert judged.get_color() != chosen.get_color()
    assert judged.get_ydata().tolist() == chosen.get_ydata().tolist() == [49, 50, 51, 52, 53]
    assert [t.get_text() for t in both.axes[0].texts] == ['1']  # the best tau
    names = [t.get_text() for t in one.legends[0].get_texts()]
    assert 'split that judges' not in names and 'split that chooses' in names
    with Image.open(tmp_path / 'curves.png') as image:
        colour = np.array(image.convert('RGB')).reshape(-1, 3)
    assert (colour == list(bytes.fromhex(chosen.get_color()[1:]))).all(1).any()


def test_curves_without_a_tail_label_say_so(figures, tmp_path):
    unknown = [row | {'mIoU_tail': float('nan')} for row in curve(1)]
    plot_operating_points(range(5), unknown, unknown, unknown[0], tmp_path / 'curves.png')
    shown = [[t.get_text() for t in axes.texts] for axes in figures[0].axes]
    assert shown[1] == ['no class of these has a label'] and shown[0] == ['4']


@pytest.mark.parametrize('tail', (1, 4, 50))
def test_tail_page(figures, tmp_path, tail):
    classes = (HOSTILE * 5)[:tail] + ['car', 'car']
    generator = np.random.default_rng(0)
    label = generator.integers(0, tail + 1, (6, 8)).repeat(8, 0).repeat(8, 1)
    label[0] = 255
    page = TailImage('$1.png', np.zeros((48, 64, 3), np.uint8), {'label': label, '_run': label})
    draw_tail_page([page], range(tail), classes, tmp_path / 'page.png')
    with Image.open(tmp_path / 'page.png') as image:
        pixels = np.array(image.convert('RGB')).reshape(-1, 3)
    for c in range(tail):
        drawn = (pixels == list(bytes.fromhex(colours(tail)[c][1:]))).all(1).any()
        assert drawn == (label == c).any() or tail > 7
    legend = [t.get_text().strip() for t in figures[0].legends[0].get_texts()]
    assert len(legend) == len(set(np.unique(label)) - {255, tail}) + 2
    assert legend[-2:] == ['other classes', 'no label']
    assert 'IoU [%]: $x_1 100' in figures[0].axes[2].get_title()
    assert ('more' in figures[0].axes[2].get_title()) == (tail > 6)


def test_a_tail_class_that_is_ignored_is_black(figures, tmp_path):
    label = np.array([[0, 0], [1, 3]]).repeat(8, 0).repeat(8, 1)
    page = TailImage('a.png', np.zeros((16, 16, 3), np.uint8), {'label': label, 'run': label})
    names = ['void', 'road', 'sky', 'bike']
    draw_tail_page([page], [0, 3], names, tmp_path / 'page.png', ignore_index=0)
    legend = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert legend == ['bike', 'other classes', 'no label']
    drawn = figures[0].axes[1].images[0].get_array()
    assert (drawn[label == 0] == 0).all() and (drawn[label == 3] != 0).any()


def test_queue_use(figures):
    prior = prior_of(3)
    file = io.BytesIO()
    plot_queue_use([5, 0, 2], [6, 4, 4], prior, prior.names, file)
    slots, keys = figures[0].axes[0].containers
    assert [bar.get_width() for bar in slots] == [6, 4, 4]
    assert [bar.get_width() for bar in keys] == [5, 0, 2]
    assert figures[0].axes[0].get_xlabel() == 'keys in the queue, 7 in all'
    assert file.getvalue().startswith(b'\x89PNG')


@pytest.mark.parametrize('number', (2, 150))
def test_embeddings(figures, tmp_path, number):
    prior = prior_of(number)
    generator = torch.Generator().manual_seed(0)
    keys, queries = (torch.randn(n, 8, generator=generator) for n in (4 * number, number))
    of_keys, of_queries = torch.arange(number).repeat(4), torch.arange(number)
    plot_embeddings(keys, of_keys, queries, of_queries, prior, prior.names, tmp_path / 'view.png')
    axes = figures[0].axes[0]
    named = [c for c in reversed(prior.groups().tail)][:7]
    assert len(axes.texts) == len(named) and 'principal axis' in axes.get_xlabel()
    shown = {to_hex(colour) for spots in axes.collections for colour in spots.get_facecolor()}
    assert {colour.lower() for colour in colours(len(named))} <= shown
    drawn = sum(len(spots.get_offsets()) for spots in axes.collections)
    assert drawn == 5 * number


def test_importing_it_does_not_import_matplotlib():
    code = """
import sys
from mmseg_ltmi.visualization import *  # all of it: its names are imported when they are used
print("matplotlib" in sys.modules)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'
