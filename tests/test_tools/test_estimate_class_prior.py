import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import BaseLoop
from mmseg.registry import DATASETS
from torch import nn

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis import count
from mmseg_ltmi.cli import main
from mmseg_ltmi.core.priors import ClassCountError, count_as_trained, count_dataset
from mmseg_ltmi.engine import ClassPriorHook

TOOL = Path(__file__).parents[2] / 'tools' / 'estimate_class_prior.py'


@pytest.fixture
def root(tmp_path):
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    for i, label in enumerate(([[0, 1], [1, 2]], [[2, 2], [255, 0]])):
        cv2.imwrite(str(tmp_path / 'img' / f'{i}.jpg'), np.zeros((2, 2, 3), np.uint8))
        cv2.imwrite(str(tmp_path / 'ann' / f'{i}.png'), np.array(label, np.uint8))
    return tmp_path


def config(root, **kwargs):
    return dict(
        type='mmseg.BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
        **{'metainfo': dict(classes=('a', 'b', 'c')), **kwargs},
    )


def build(*args, **kwargs):
    return DATASETS.build(config(*args, **kwargs))


@pytest.mark.parametrize('how', [{}, dict(as_trained=2)])
def test_a_split_without_images_is_named_with_its_folders(root, how):
    (root / 'empty').mkdir()
    cfg = Config(dict(val_dataloader=dict(dataset=config(root))))
    cfg.val_dataloader.dataset.data_prefix.img_path = 'empty'
    with pytest.raises(ValueError, match='val split has no images .*empty, .*ann') as error:
        count(cfg, 'val', num_workers=0, **how)
    assert str(root / 'empty') in str(error.value)


@pytest.mark.parametrize('workers', [0, 2])
def test_counts_by_hand(root, workers):
    prior, failures = count_dataset(build(root), workers)
    assert prior.pixel_counts.tolist() == [2, 2, 3] and not failures
    assert prior.image_counts.tolist() == [2, 1, 2]
    assert (prior.num_images, prior.num_ignored) == (2, 1)


def test_reduce_zero_label_counts_as_in_training(root):
    dataset = build(root, reduce_zero_label=True, metainfo=dict(classes=('b', 'c')))
    prior = ClassPrior.from_dataset(dataset)
    assert prior.pixel_counts.tolist() == [2, 3] and prior.num_ignored == 3


def test_repeated_data_set_counts_once(root):
    dataset = DATASETS.build(dict(type='RepeatDataset', times=3, dataset=config(root)))
    assert ClassPrior.from_dataset(dataset).pixel_counts.tolist() == [2, 2, 3]


def test_failures_are_listed_and_strict_stops(root):
    (root / 'ann' / '0.png').write_bytes(b'no png')
    cv2.imwrite(str(root / 'ann' / '1.png'), np.full((2, 2), 7, np.uint8))
    prior, failures = count_dataset(build(root))
    assert prior is None and [Path(p).name for p, _ in failures] == ['0.png', '1.png']
    assert 'labels 7 (4 pixels)' in failures[1][1]
    with pytest.raises(ClassCountError, match='0.png'):
        count_dataset(build(root), strict=True)


@pytest.fixture
def run_tool(root, capsys):
    """Runs the command on the data set of ``root`` in this process."""
    (root / 'config.py').write_text(f'train_dataloader = dict(dataset={config(root)!r})\n')

    def run(*extra):
        arguments = [root / 'config.py', '--out', root / 'p.json', *extra]
        status = main(['count', *map(str, arguments)])
        shown = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=shown.out, stderr=shown.err)

    return run


@pytest.mark.smoke
def test_tool(root, run_tool):
    command = [sys.executable, TOOL, root / 'config.py', '--out', root / 'p.json']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ClassPrior.load(root / 'p.json').pixel_counts.tolist() == [2, 2, 3]
    assert (root / 'p.png').stat().st_size > 1000 and 'tail' in done.stdout
    assert 'give --force' in run_tool().stderr


def test_function(root):
    wrapped = dict(type='ConcatDataset', datasets=[config(root), config(root)])
    cfg = Config(dict(val_dataloader=dict(dataset=wrapped)))
    prior, failures = count(cfg, 'val', num_workers=0)
    assert prior.pixel_counts.tolist() == [4, 4, 6] and not failures
    with pytest.raises(ValueError, match='no train_dataloader: choose another --split'):
        count(cfg)


def test_tool_counts_from_its_cache(root, run_tool):
    assert run_tool().returncode == 0
    cache = root / 'p.counts.txt'
    assert len(cache.read_bytes().splitlines()) == 2
    stat = (root / 'ann' / '0.png').stat()
    # The file looks unchanged, so only the cache can tell what was in it.
    (root / 'ann' / '0.png').write_bytes(b'x' * stat.st_size)
    os.utime(root / 'ann' / '0.png', ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run_tool('--force').returncode == 0
    assert ClassPrior.load(root / 'p.json').pixel_counts.tolist() == [2, 2, 3]
    assert run_tool('--force', '--no-cache').returncode == 1
    done = run_tool('--force', '--no-cache', '--strict')
    assert done.returncode == 1 and '0.png' in done.stderr and 'wrote' not in done.stdout


def test_colour_masks_are_one_message_and_an_absent_class_a_warning(root, run_tool):
    done = run_tool(
        '--cfg-options', "train_dataloader.dataset.metainfo.classes=['a','b','c','d e']"
    )
    assert done.returncode == 0
    assert 'WARNING: 1 of the 4 classes have no pixel and cannot be learned: d e.' in done.stderr
    for i in range(2, 42):
        cv2.imwrite(str(root / 'img' / f'{i}.jpg'), np.zeros((2, 2, 3), np.uint8))
        cv2.imwrite(str(root / 'ann' / f'{i}.png'), np.zeros((2, 2, 3), np.uint8))
    done = run_tool('--force')
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 2 and '[40 files: ' in lines[0]
    assert lines[1] == '40 label files could not be counted' and 'convert-labels' in lines[0]


def test_tool_counts_as_trained(root, run_tool):
    done = run_tool('--as-trained', '4', '--seed', '5')
    assert done.returncode == 0, done.stderr
    prior = ClassPrior.load(root / 'p.json')
    # Nothing crops here, so two passes over the set are twice its labels.
    assert prior.pixel_counts.tolist() == [4, 4, 6] and 'seed 5' in prior.source
    assert not (root / 'p.counts.txt').exists()


def test_as_trained_counts_the_crops_that_hold_a_class(root):
    cfg = config(root)
    cfg['pipeline'].append(dict(type='mmseg.RandomCrop', crop_size=(1, 1)))
    dataset = DATASETS.build(cfg)
    assert count_dataset(dataset).prior.image_counts.tolist() == [2, 1, 2]  # of the 2 images
    prior = count_as_trained(dataset, 80).prior
    images = prior.image_counts
    assert images.tolist() == prior.pixel_counts.tolist()  # a crop is a pixel here
    assert prior.num_images == 80 and images == pytest.approx([20, 20, 30], abs=10)
    assert prior.presence().probs(0).tolist() == pytest.approx((images / images.sum()).tolist())


def test_tool_finishes_the_rest_and_fails(root, run_tool):
    (root / 'ann' / '0.png').unlink()
    done = run_tool()
    assert done.returncode == 1 and '0.png' in done.stderr
    assert not (root / 'p.json').exists()
    assert ClassPrior.load(root / 'p.partial.json').pixel_counts.tolist() == [1, 0, 2]
    (root / 'ann' / '1.png').unlink()
    done = run_tool()
    assert done.returncode == 1 and 'nothing is written' in done.stderr


class Loader:
    def __init__(self, dataset):
        self.dataset = dataset


class Loop(BaseLoop):
    def run(self):
        pass


class FakeRunner:
    def __init__(self, root, model, train=True):
        self.model, self.work_dir = model, root / 'work'
        self.train_dataloader = Loader(build(root))
        # What tells the hook that this run trains.
        self._train_loop = Loop(self, self.train_dataloader) if train else None
        self.logger = logging.getLogger('test')


def test_hook_fills_open_priors_and_caches(root, monkeypatch):
    from mmseg_ltmi.models.losses import LogitAdjustedLoss

    for _ in range(2):
        model = nn.ModuleList([LogitAdjustedLoss(), LogitAdjustedLoss([1, 1, 1])])
        ClassPriorHook().before_run(FakeRunner(root, model))
        assert not model[0].needs_class_prior
        assert model[0].log_prior.exp().tolist() == pytest.approx([2 / 7, 2 / 7, 3 / 7], abs=1e-5)
        assert model[1].log_prior.exp().tolist() == pytest.approx([1 / 3] * 3)
        monkeypatch.setattr(ClassPrior, 'from_dataset', None)  # not called again
    monkeypatch.undo()
    (root / 'ann' / '0.png').write_bytes(b'changed, so the cache is of another data set')
    with pytest.raises(ClassCountError, match='0.png'):
        ClassPriorHook().before_run(FakeRunner(root, nn.ModuleList([LogitAdjustedLoss()])))


def test_hook_logs_what_it_counted(root, caplog):
    from mmseg_ltmi.models.losses import LogitAdjustedLoss

    dataset = build(root, metainfo=dict(classes=('a', 'b', 'c', 'crack')))
    for _ in range(2):  # counted, then read
        runner = FakeRunner(root, nn.ModuleList([LogitAdjustedLoss()]))
        runner.train_dataloader.dataset = dataset
        with caplog.at_level(logging.INFO, 'test'):
            caplog.clear()
            ClassPriorHook().before_run(runner)
        table, warning = caplog.records[-2:]
        rows = [line for line in table.message.splitlines() if line.startswith('| c ')]
        assert rows[0].split()[1:-1] == ['c', '|', '3', '|', '42.8571', '|', '2', '|', 'head']
        assert '2 images, 1 pixels ignored' in table.message
        assert warning.levelname == 'WARNING' and 'cannot be learned: crack.' in warning.message
        assert '12.5 % of all pixels have the label that is ignored' in warning.message
    (root / 'work/class_prior.json').unlink()
    caplog.clear()
    ClassPriorHook().before_run(FakeRunner(root, nn.ModuleList([LogitAdjustedLoss()])))
    assert 'cannot be learned' not in caplog.text


def test_hook_leaves_a_run_that_only_tests(root):
    from mmseg_ltmi.models.losses import LogitAdjustedLoss

    loss = LogitAdjustedLoss()
    ClassPriorHook().before_run(FakeRunner(root, nn.ModuleList([loss]), train=False))
    assert loss.needs_class_prior and not (root / 'work').exists()
