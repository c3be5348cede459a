"""The benchmark of the paper: its data, its augmentation, its loss in float64, and resuming."""

import copy
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

EXAMPLES = Path(__file__).parents[2] / 'examples'
COUNTS = (40, 16, 6, 2)


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module('cifar100_lt')


@pytest.fixture
def augmentation(example):
    return importlib.import_module('cifar_augment')


@pytest.fixture
def data(tmp_path):
    """64 images for training, 40 for testing, whose colour tells the class."""
    random = np.random.RandomState(0)
    for split, counts in (('train', COUNTS), ('test', (10, 10, 10, 10))):
        labels = np.repeat(np.arange(4), counts).astype(np.uint8)
        images = random.randint(0, 60, (len(labels), 32, 32, 3)) + 60 * labels[:, None, None, None]
        np.savez(tmp_path / f'{split}.npz', images=images.astype(np.uint8), labels=labels)
    return tmp_path


def command(data, out, *options):
    tiny = ('--depth', '8', '--batch-size', '32', '--epochs', '2', '--device', 'cpu')
    return ['--data', str(data), '--out', str(out), *tiny, *options]


def pictures(count=6):
    """Smooth ones, noise, and a picture of one colour."""
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=torch.manual_seed(0))
    images[: count // 2] = F.avg_pool2d(images[: count // 2].double(), 5, 1, 2).long()
    images[-1] = torch.tensor([10, 200, 90])[:, None, None]
    return images.to(torch.uint8)


# ---- data


def test_long_tail_has_the_published_counts(example):
    labels = torch.arange(100).repeat_interleave(500)
    part = example.long_tail(labels, 100)
    counts = labels[part].bincount()
    assert len(part) == 10847 == len(part.unique())
    # 500 / 100^(1/3) = 107.7 and 500 / 100^(2/3) = 23.2
    assert counts[[0, 33, 66, 99]].tolist() == [500, 107, 23, 5]
    assert len(example.long_tail(labels, 10)) == 19573


def test_long_tail_draws_as_the_public_code(example):
    labels = torch.arange(3).repeat(4)  # 0 1 2 0 1 2 ...
    np.random.seed(0)
    first, second, third = np.arange(0, 12, 3), np.arange(1, 12, 3), np.arange(2, 12, 3)
    for indices in (first, second, third):
        np.random.shuffle(indices)
    expected = [*first, *second[:2], third[0]]
    assert example.long_tail(labels, 4).tolist() == expected


def test_official_files_and_npz_are_read_alike(example, data, tmp_path):
    images, labels = example.read_split(data, 'train')
    assert images.shape == (64, 3, 32, 32) and images.dtype == torch.uint8
    assert labels.bincount().tolist() == list(COUNTS) and labels.dtype == torch.int64
    coarse = torch.full((64, 1), 77)
    rows = torch.cat([coarse, labels[:, None], images.flatten(1)], 1).to(torch.uint8)
    (tmp_path / 'bin').mkdir()
    rows.numpy().tofile(tmp_path / 'bin' / 'train.bin')
    for ours, read in zip(
        (images, labels), example.read_split(tmp_path / 'bin', 'train'), strict=True
    ):
        assert torch.equal(ours, read)


def test_groups_are_of_more_than_100_and_of_less_than_20(example):
    counts = torch.tensor([101, 100, 20, 19])
    labels = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3])
    correct = torch.tensor([1, 1, 1, 0, 1, 0, 1, 0]) == 1
    found = example.group_accuracies(correct, labels, counts)
    assert found == {'all': 62.5, 'many': 100, 'medium': 50, 'few': 50}
    assert np.isnan(example.group_accuracies(correct, labels, counts + 1)['few'])


def test_learning_rate(example):
    rates = [example.learning_rate(epoch, 200) for epoch in (0, 4, 5, 159, 160, 179, 180, 199)]
    assert rates == pytest.approx([0.02, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    rates = [example.learning_rate(epoch, 30) for epoch in (0, 2, 23, 24, 27)]
    assert rates == pytest.approx([0.1 / 3, 0.1, 0.1, 0.01, 0.001])
    assert example.learning_rate(0, 2) == 0.1


# ---- augmentation


def pillow(name, image, level):
    grey, part = (128,) * 3, abs(level)

    def affine(*matrix):
        return image.transform((32, 32), Image.Transform.AFFINE, matrix, fillcolor=grey)

    return {
        'autocontrast': lambda: ImageOps.autocontrast(image),
        'brightness': lambda: ImageEnhance.Brightness(image).enhance(1 + 0.9 * level),
        'color': lambda: ImageEnhance.Color(image).enhance(1 + 0.9 * level),
        'contrast': lambda: ImageEnhance.Contrast(image).enhance(1 + 0.9 * level),
        'equalize': lambda: ImageOps.equalize(image),
        'invert': lambda: ImageOps.invert(image),
        'posterize': lambda: ImageOps.posterize(image, round(8 - 4 * part)),
        'rotate': lambda: image.rotate(30 * level, fillcolor=grey),
        'sharpness': lambda: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level),
        'solarize': lambda: ImageOps.solarize(image, 256 - 256 * part),
        'translate_x': lambda: affine(1, 0, 32 * 150 / 331 * level, 0, 1, 0),
        'translate_y': lambda: affine(1, 0, 0, 0, 1, 32 * 150 / 331 * level),
    }[name]()


@pytest.mark.parametrize('level', [-1, -7 / 9, 2 / 9, 1])
def test_operations_equal_those_of_pillow(augmentation, level):
    images = pictures()
    for name, operation in augmentation.OPERATIONS.items():
        ours = operation(images, torch.full((len(images),), level))
        assert ours.shape == images.shape and ours.dtype == torch.uint8
        if name == 'shear_y':  # bicubic; torch's kernel is another one
            continue
        for image, changed in zip(images, ours, strict=True):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            expected = torch.from_numpy(np.array(pillow(name, picture, level))).permute(2, 0, 1)
            # Pillow stretches the contrast in floating point, and truncates.
            assert (changed.int() - expected.int()).abs().max() <= (name == 'autocontrast'), name


def test_shear_moves_columns_in_proportion_to_their_place(augmentation):
    images = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    images[:, :, 16:] = 200
    sheared = augmentation.shear_y(images, torch.tensor([1.0]))[0, 0].int()
    # The border between 100 and 200 rises by 0.3 pixels a column; grey comes from below.
    for x in (0, 9, 19, 31):
        border = 16 - 0.3 * (x + 0.5)
        assert (sheared[2 : int(border) - 3, x] == 100).all()
        assert (sheared[int(border) + 3 : int(border) + 12, x] == 200).all()
    assert sheared[31, 31] == 128


def test_policy_happens_as_often_as_its_table_says(augmentation, monkeypatch):
    seen = {}

    def recorder(name):
        def operation(images, level):
            seen.setdefault(name, []).extend(level.tolist())
            return images

        return operation

    operations = {name: recorder(name) for name in augmentation.OPERATIONS}
    monkeypatch.setattr(augmentation, 'OPERATIONS', operations)
    torch.manual_seed(0)
    augmentation.auto_augment(torch.zeros(50000, 1, 1, 1, dtype=torch.uint8))
    # Each of the 25 pairs is drawn 2000 times. The chances are the table's, summed by hand.
    chances = dict(
        invert=0.2, rotate=0.7, posterize=0.3, solarize=1.9, shear_y=0.7, translate_x=0.8,
        translate_y=3.4, color=2.9, brightness=2.3, contrast=0.8, sharpness=2.8,
        autocontrast=5.0, equalize=4.7,
    )  # fmt: skip
    assert seen.keys() == chances.keys()
    for name, chance in chances.items():
        assert len(seen[name]) == pytest.approx(2000 * chance, abs=4 * (2000 * chance) ** 0.5), name
    assert {round(9 * level) for level in seen['rotate']} == {-2, 2}
    assert {round(9 * level) for level in seen['translate_y']} == {-9, -3, 3, 9}


def test_crop_and_flip(augmentation):
    images = torch.arange(1, 33).expand(400, 3, 32, 32).to(torch.uint8)  # the column, from 1
    images = images + 100 * (torch.arange(32) == 16)[:, None].to(torch.uint8)  # row 16 is marked
    torch.manual_seed(0)
    views = augmentation.crop_and_flip(images).int()
    places = set()
    for view in views:
        assert (view[0] == view).all()
        row = int((view[0, :, 16] > 100).nonzero())
        line = view[0, row] - 100
        line = line.where(line > 0, 0)
        flipped = line[15] > line[16]
        shift = int((line.flip(0) if flipped else line)[15]) - 16
        expected = torch.arange(32) + 1 + shift
        expected = expected.where((expected >= 1) & (expected <= 32), 0)
        assert (line == (expected.flip(0) if flipped else expected)).all()
        places.add((16 - row, shift, bool(flipped)))
    assert {p[0] for p in places} == {p[1] for p in places} == set(range(-4, 5))
    assert {p[2] for p in places} == {True, False}


def test_cutout_blackens_a_square_around_any_pixel(augmentation):
    torch.manual_seed(0)
    black = augmentation.cutout(torch.full((500, 3, 32, 32), 9, dtype=torch.uint8)) == 0
    assert (black == black[:, :1]).all()
    heights, widths = black[:, 0].any(2).sum(1), black[:, 0].any(1).sum(1)
    assert (black[:, 0].sum((1, 2)) == heights * widths).all()
    # Its centre may be the first pixel (8 are left) or the last (9).
    assert heights.min() == widths.min() == 8 and heights.max() == widths.max() == 16


def test_augment_changes_every_image_and_is_drawn_by_the_seed(augmentation):
    images = pictures(20)
    views = []
    for _ in range(2):
        torch.manual_seed(3)
        views.append(augmentation.augment(images, block=8))
    assert torch.equal(*views) and not torch.equal(views[0], augmentation.augment(images, block=8))
    assert views[0].shape == images.shape and views[0].dtype == torch.uint8
    assert all(not torch.equal(a, b) for a, b in zip(views[0], images, strict=True))


# ---- the loss


def projected(head, x):
    """Linear, BatchNorm if there is one, ReLU, linear, and the division by the norm."""
    first, *norm, _, second = head
    x = x @ first.weight.T + first.bias
    for layer in norm:
        x = (x - x.mean(0)) / (x.var(0, unbiased=False) + layer.eps).sqrt()
        x = x * layer.weight + layer.bias
    x = x.clamp(min=0) @ second.weight.T + second.bias
    return x / x.pow(2).sum(1, keepdim=True).sqrt()


def mixture(query, labels, ids, key, key_labels, key_ids, log_prior, temperature, held_out):
    losses = []
    for i in range(len(query)):
        joint = {}
        for c in range(len(log_prior)):
            mine = (key_labels == c) & ~(held_out & (key_ids == ids[i]))
            if mine.any():
                scores = (key[mine] * query[i]).sum(1) / temperature
                joint[c] = scores.exp().mean().log() + log_prior[c]
        if int(labels[i]) in joint:
            total = torch.stack(list(joint.values())).exp().sum().log()
            losses.append(total - joint[int(labels[i])])
    return torch.stack(losses).mean()


def naive_terms(method, key_network, views, labels, ids, queue, tau, teacher_shift):
    """The terms by their formulas; ``queue`` is the list of all samples so far."""
    probs = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    log_prior = ((1 - 1e-6) * probs + 1e-6 / 4).log()  # smoothed, as a ClassPrior is
    size = len(labels)
    scores, features = method.network(torch.cat(views[:2]))
    log_p = (scores[:size] + tau * log_prior).log_softmax(1)
    terms = {'loss_sup': -log_p[torch.arange(size), labels].mean()}
    if len(views) == 1:
        return terms
    samples = features[size:].detach()
    if key_network is not None:
        with torch.no_grad():
            taught, samples = key_network(torch.cat([views[0], views[2]]))
        samples = samples[size:]
        s = (scores[:size] / 4).log_softmax(1)
        t = ((taught[:size] + teacher_shift * log_prior) / 4).log_softmax(1)
        terms['loss_distill'] = 16 * (t.exp() * (t - s)).sum(1).mean()
    queue.append((samples, labels, ids))
    stored, key_labels, key_ids = (torch.cat(part) for part in zip(*queue, strict=True))
    # Empty slots are zeros, and BatchNorm sees them.
    empty = stored.new_zeros(4096 - len(stored), 64)
    key = projected(method.key_projector, torch.cat([stored, empty]))[: len(stored)]
    query = projected(method.projector, features[size:])
    log_t = method.contrast.log_temperature
    rest = (key_labels, key_ids, log_prior)
    terms['loss_contrast'] = mixture(
        query, labels, ids, key, *rest, log_t.detach().exp(), False
    ) + mixture(query.detach(), labels, ids, key.detach(), *rest, log_t.exp(), True)
    return terms


@pytest.mark.parametrize(
    'options',
    [
        '--method ce',
        '--method la',
        '--method ltmi --projection plain',
        '--method ltmi --keys ema',
        '--method ltmi --teacher',
    ],
)
def test_two_steps_against_the_formulas_in_float64(example, data, tmp_path, options):
    options = options.split()
    if options[-1] == '--teacher':
        # Of cross-entropy, so that its scores are of another reading.
        example.main(command(data, tmp_path / 'ce', '--method', 'ce', '--epochs', '1'))
        options.append(str(tmp_path / 'ce' / 'last.pth'))
    torch.manual_seed(0)
    args = example.options(command(data, tmp_path / 'out', *options))
    method = example.Method(torch.tensor(COUNTS), args).double()
    images, labels = example.read_split(data, 'train')
    optimizer = torch.optim.SGD(method.parameters(), 0.01)
    averaged, queue = copy.deepcopy(method.network), []
    assert method.num_views == {'ce': 1, 'la': 1}.get(args.method, 2 if args.keys == 'self' else 3)

    # Sixteen of the images are in both steps: keys of the first are the second's own.
    for step, ids in enumerate((torch.randperm(64)[:32], torch.arange(16, 64))):
        views = [example.augment(images[ids]) for _ in range(method.num_views)]
        key_network = method.key_network
        if args.keys == 'ema':
            for p, q in zip(averaged.parameters(), method.network.parameters(), strict=True):
                p.data = q.data.clone() if step == 0 else 0.999 * p.data + 0.001 * q.data
            key_network = averaged
        ours = method.losses(views, labels[ids], ids)
        sum(ours.values()).backward()
        gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        method.zero_grad()
        expected = naive_terms(
            method, key_network, views, labels[ids], ids, queue, float(args.method != 'ce'),
            -1.0 if args.keys == 'teacher' else 0.0,
        )  # fmt: skip
        sum(expected.values()).backward()
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=0)
        for name, p in method.named_parameters():
            assert (p.grad is None) == (name not in gradients)
            if p.grad is not None:
                error = (gradients[name] - p.grad).norm()
                assert error <= 1e-6 * p.grad.norm() + 1e-9, name
        optimizer.step()
        optimizer.zero_grad()
    if method.contrasts:
        assert method.contrast.temperature != pytest.approx(0.1, abs=1e-7)


# ---- the program


@pytest.mark.parametrize('options', ['--method la', '--keys self', '--keys ema'])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    example, data, tmp_path, options, monkeypatch, capsys
):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    example.main(command(data, whole, *options.split()))
    rate = example.learning_rate

    def stop(epoch, epochs):
        if epoch == 1:
            raise KeyboardInterrupt
        return rate(epoch, epochs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(example, 'learning_rate', stop)
        example.main(command(data, parts, *options.split()))
    assert len((parts / 'log.csv').read_text().splitlines()) == 2
    example.main(command(data, parts, *options.split()))
    assert (parts / 'log.csv').read_bytes() == (whole / 'log.csv').read_bytes()
    ours, theirs = (torch.load(folder / 'last.pth') for folder in (parts, whole))
    # The reader has NaN for what is unknown.
    for name in ('method', 'optimizer'):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0, equal_nan=True)

    capsys.readouterr()
    example.main(command(data, parts, *options.split()))  # nothing is left to do
    text = capsys.readouterr().out
    assert text.startswith('last: ') and 'best: ' in text
    with pytest.raises(SystemExit, match="'seed': 0.*give another --out"):
        example.main(command(data, parts, *options.split(), '--seed', '1'))


def test_readings_of_cross_entropy_and_logit_adjustment(example, data, tmp_path):
    images, labels = example.read_split(data, 'test')
    log_prior = (torch.tensor(COUNTS) / sum(COUNTS)).log()
    for method_name, shifts in (('ce', (-1, 0)), ('la', (0, 1))):
        args = example.options(command(data, tmp_path, '--method', method_name))
        torch.manual_seed(0)
        method = example.Method(torch.tensor(COUNTS), args)
        found = example.evaluate(method, (images, labels), torch.tensor(COUNTS))
        with torch.no_grad():
            scores = method.network.eval()(images)[0]
        for reading, shift in zip(('balanced', 'natural'), shifts, strict=True):
            right = (scores + shift * log_prior).argmax(1) == labels
            assert found[f'{reading}_all'] == round(100 * float(right.float().mean()), 2)


def test_a_teacher_needs_its_keys(example, tmp_path, capsys):
    for options in (['--keys', 'teacher'], ['--keys', 'ema', '--teacher', 't.pth']):
        with pytest.raises(SystemExit):
            example.options(command(tmp_path, tmp_path, *options))
        assert '--teacher and --keys teacher go together' in capsys.readouterr().err


def test_command_line_where_nothing_else_is_installed(data, tmp_path):
    driver = (
        'import runpy, sys\n'
        "for name in ('mmengine', 'mmcv', 'mmseg', 'torchvision', 'PIL'):\n"
        '    sys.modules[name] = None\n'
        'sys.path.insert(0, sys.argv[1])\n'
        'sys.argv = sys.argv[2:]\n'
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    arguments = command(data, tmp_path / 'out', '--imbalance', '4')
    done = subprocess.run(
        [sys.executable, '-c', driver, EXAMPLES, EXAMPLES / 'cifar100_lt.py', *arguments],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    header, *rows = (tmp_path / 'out' / 'log.csv').read_text().splitlines()
    assert header.startswith('epoch,loss_sup,loss_contrast,temperature,balanced_all,balanced_many')
    assert [row.split(',')[0] for row in rows] == ['1', '2']
    assert 'best: ' in done.stdout
