"""tools/study.py: the grid, interruption, failures and tables."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from mmengine.config import Config
from tiny import ROOT

from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.priors import ClassPrior
from mmseg_ltmi.study import plan, read_study, refuse_changes

TOOL = ROOT / 'tools' / 'study.py'
BASE = ROOT / 'configs/demo/ce_fcn-r18_400_shapes-128x128.py'
STEPS = 40  # twice the first checkpoint's, after which it is stopped
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
train_cfg = dict(max_iters={STEPS})
default_hooks = dict(checkpoint=dict(interval={STEPS // 2}), logger=dict(interval=1))
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


def test_a_study_is_stopped_fails_goes_on_and_is_compared(folder):
    # Stopped in the middle of its first run, as from a shell whose jobs ignore Ctrl-C.
    study = subprocess.Popen(
        command(folder, '--rows', 'ce', '--seeds', '0'),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    first = folder / 'out/runs/ce-seed0'
    saved = first / 'last_checkpoint'  # written after the checkpoint itself
    while not (saved.exists() and saved.read_text()):
        assert study.poll() is None
        time.sleep(0.1)
    study.send_signal(signal.SIGTERM)
    assert study.wait(60) == 1
    assert not (first / f'iter_{STEPS}.pth').exists()

    # The same command goes on, two runs at a time; a row that fails stops no other.
    study = folder / 'study.py'
    right, name = study.read_text(), "class_weight='median_frequency'"
    study.write_text(right.replace(name, 'class_weight=[1.0]'))
    log = run(folder, '--workers', '2', status=1)
    assert 'weights-seed0: see' in log and (folder / 'out/runs/ce-seed1/finished.json').exists()
    assert 'class_weight' in (folder / 'out/runs/weights-seed0/train.log').read_text()
    assert f'resumed epoch: 0, iter: {STEPS // 2}' in (first / 'train.log').read_text()

    # Mended, the row has another config than it was begun with.
    study.write_text(right)
    runs = plan(read_study(study), folder, folder / 'out')
    message = 'weights-seed0 was begun with another config, model.decode_head.loss_decode'
    with pytest.raises(ValueError, match=message):
        refuse_changes(runs)
    (folder / 'out/configs/weights-seed0.py').unlink()
    shutil.rmtree(folder / 'out/runs/weights-seed0')
    finished = os.stat(first / 'judge.log').st_mtime
    log = run(folder, '--rows', 'weights')
    assert os.stat(first / 'judge.log').st_mtime == finished

    for name in ('ce-seed0', 'ce-seed1', 'weights-seed0'):
        done = folder / 'out/runs' / name
        assert json.loads((done / 'finished.json').read_text())['judge'][:2] == ['--report', 'test']
        assert (done / 'operating_point/operating_point.json').exists()
        file = folder / 'out/configs' / f'{name}.py'
        cfg = Config.fromfile(file)
        assert cfg.randomness.seed == int(name[-1])
        assert cfg.model.decode_head.dropout_ratio == 0
    assert 'class_prior' in cfg.model.decode_head.loss_decode
    assert '_delete_' not in file.read_text()
    table = (folder / 'out/comparison/natural/comparison.md').read_text()
    assert '| ce | 2 |' in table and '| weights | 1 |' in table and '## natural' in log
    assert (folder / 'out/comparison/IoU_rule/difference.png').exists()
    rows = (folder / 'out/comparison/readings.md').read_text().splitlines()
    assert rows[2].startswith('| run | seeds | IoU_rule | natural | tau_by_mAcc')
    lines = (folder / 'out/comparison/runs.csv').read_text().splitlines()
    assert lines[0] == 'reading,row,seed,mIoU,mIoU_head,mIoU_medium,mIoU_tail,mAcc'
    assert sum(line.startswith('natural,ce,') for line in lines) == 2
    assert [row.split(' | ')[:2] for row in rows[4:]] == [['| ce', '2'], ['| weights', '1']]

    # A judge that fails loses nothing of what was judged before.
    kept = {file: file.read_bytes() for file in done.glob('operating_point/**/*.json')}
    kept[done / 'finished.json'] = (done / 'finished.json').read_bytes()
    study.write_text(right.replace("'--folds', '2'", "'--folds', 99"))
    log = run(folder, '--rows', 'weights', status=1)
    assert 'weights-seed0: see' in log and 'has no finished run of this study' in log
    assert 'folds=99 of 4 images' in (done / 'judge.log').read_text()
    assert len(kept) > 6 and all(file.read_bytes() == text for file, text in kept.items())


@pytest.mark.parametrize('before', [signal.SIG_DFL, signal.SIG_IGN])
def test_a_terminal_that_closes_stops_a_study(tmp_path, monkeypatch, before):
    monkeypatch.syspath_prepend(TOOL.parent)
    import study

    taken = {signal.SIGHUP: before}
    monkeypatch.setattr(signal, 'signal', taken.__setitem__)
    monkeypatch.setattr(signal, 'getsignal', taken.get)
    monkeypatch.setattr(sys, 'argv', ['study.py', str(tmp_path / 'none.py')])
    with pytest.raises(SystemExit, match=r'none\.py'):
        study.main()
    assert taken[signal.SIGTERM] is study.stop
    assert (taken[signal.SIGHUP] is study.stop) == (before == signal.SIG_DFL)
