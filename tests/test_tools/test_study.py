"""tools/study.py: the grid, interruption, failures and tables."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from mmengine.config import Config
from tiny import ROOT

from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.priors import ClassPrior

TOOL = ROOT / 'tools' / 'study.py'
BASE = ROOT / 'configs/demo/ce_fcn-r18_400_shapes-128x128.py'
STUDY = """
base = 'base.py'
common = dict(model=dict(decode_head=dict(dropout_ratio=0.0)))
seeds = (0, 1)
judge = ['--report', 'test', '--folds', '2']
rows = dict(
    ce=dict(),
    weights=dict(
        change=dict(model=dict(decode_head=dict(type='LTMIFCNHead', loss_decode=dict(
            _delete_=True, type='LogitAdjustedLoss', tau=0.0, class_prior='{prior}',
            class_weight='median_frequency')))),
        seeds=(0,),
    ),
)
"""


@pytest.fixture
def folder(tmp_path):
    """A study of three short runs on a few small images."""
    data = dict(data_root=str(tmp_path / 'data'), size=(64, 64))
    pipeline = [dict(type='mmseg.LoadAnnotations')]
    for split in ('train', 'test'):
        LongTailShapesDataset(split=split, num_images=4, pipeline=pipeline, **data)
    train = LongTailShapesDataset(split='train', num_images=4, pipeline=pipeline, **data)
    ClassPrior.from_dataset(train).save(tmp_path / 'prior.json')
    (tmp_path / 'base.py').write_text(f"""
_base_ = '{BASE}'
_data = dict(data_root='{tmp_path}/data', size=(64, 64), num_images=4)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=_data)
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=_data)
test_evaluator = dict(class_prior='{tmp_path}/prior.json')
train_cfg = dict(max_iters=4)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
""")
    (tmp_path / 'study.py').write_text(STUDY.format(prior=tmp_path / 'prior.json'))
    return tmp_path


def command(folder, *arguments):
    study = folder / 'study.py'
    return [sys.executable, '-W', 'ignore', TOOL, study, '--out', folder / 'out', *arguments]


def run(folder, *arguments, status=0):
    done = subprocess.run(command(folder, *arguments), capture_output=True, text=True, timeout=400)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_a_study_is_trained_judged_resumed_and_compared(folder):
    # Stopped in the middle of its first run, as from a shell whose jobs ignore Ctrl-C ...
    study = subprocess.Popen(
        command(folder, '--rows', 'ce'),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    first = folder / 'out/runs/ce-seed0'
    while not (first / 'iter_2.pth').exists():
        assert study.poll() is None
        time.sleep(0.1)
    study.send_signal(signal.SIGTERM)
    assert study.wait(60) == 1
    assert not (first / 'finished.json').exists()

    # ... it goes on with the same command, two runs at a time.
    log = run(folder, '--workers', '2')
    text = (first / 'train.log').read_text()
    assert 'resumed' in text or 'finished' in log
    for name in ('ce-seed0', 'ce-seed1', 'weights-seed0'):
        done = folder / 'out/runs' / name
        assert set(json.loads((done / 'finished.json').read_text())['seconds']) == {
            'train',
            'judge',
        }
        assert (done / 'operating_point/operating_point.json').exists()
        file = folder / 'out/configs' / f'{name}.py'
        cfg = Config.fromfile(file)
        assert cfg.randomness.seed == int(name[-1])
        assert cfg.model.decode_head.dropout_ratio == 0
    assert 'class_prior' in cfg.model.decode_head.loss_decode
    assert '_delete_' not in file.read_text()
    table = (folder / 'out/comparison/natural/comparison.md').read_text()
    assert '| ce | 2 |' in table and '| weights | 1 |' in table
    assert (folder / 'out/comparison/IoU_rule/difference.png').exists()
    assert '## natural' in log
    rows = (folder / 'out/comparison/readings.md').read_text().splitlines()
    assert rows[2].startswith('| run | seeds | IoU_rule | natural | tau_by_mAcc')
    assert [row.split(' | ')[:2] for row in rows[4:]] == [['| ce', '2'], ['| weights', '1']]

    # Finished runs are not begun again; another config is not mixed with what is there.
    stamp = os.stat(first / 'train.log').st_mtime
    assert '## natural' in run(folder)
    assert os.stat(first / 'train.log').st_mtime == stamp
    study = folder / 'study.py'
    study.write_text(study.read_text().replace('dropout_ratio=0.0', 'dropout_ratio=0.2'))
    log = run(folder, status=1)
    assert 'ce-seed0 was begun with another config, model.decode_head.dropout_ratio=0.0, now' in log


def test_one_failing_row_stops_no_other(folder):
    study = folder / 'study.py'
    text = study.read_text().replace("class_weight='median_frequency'", 'class_weight=[1.0]')
    study.write_text(text.replace('seeds = (0, 1)', 'seeds = (0,)'))
    log = run(folder, status=1)
    assert 'not finished:\nweights-seed0: see' in log and 'ce-seed0: finished' in log
    assert 'class_weight' in (folder / 'out/runs/weights-seed0/train.log').read_text()


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('seeds = (0, 1)', 'seed = 0', "may have"),
        ('seeds=(0,)', 'sed=(0,)', "row 'weights' has"),
        ("base = 'base.py'", '', "row 'ce' has no base"),
    ],
)  # fmt: skip
def test_what_makes_no_study(folder, old, new, message):
    study = folder / 'study.py'
    study.write_text(study.read_text().replace(old, new))
    assert message in run(folder, status=1)
    assert "no row ['x']" in run(folder, '--rows', 'x', status=1) or old != 'none'
