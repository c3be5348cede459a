"""tools/study.py: the grid, interruption, failures and tables."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from tiny import ROOT

from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.priors import ClassPrior

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
    log = run(folder, status=1)
    assert 'weights-seed0 was begun with another config, model.decode_head.loss_decode' in log
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


@pytest.fixture
def study(monkeypatch):
    """The tool as a module."""
    monkeypatch.syspath_prepend(TOOL.parent)
    import study

    return study


def test_what_makes_no_study(tmp_path, study):
    text = STUDY.format(prior='prior.json')
    for old, new, message in (
        ('seeds = (0, 1)', 'seed = 0', 'may have'),
        ('seeds=(0,)', 'sed=(0,)', "row 'weights' has"),
        ('seeds = (0, 1)', 'seeds = 0', "seeds of row 'ce' must be a list"),
        ("base = 'base.py'", '', "row 'ce' has no base"),
        ('rows = ', '_rows = ', 'must have rows='),
        ('ce=dict()', 'ce=None', 'must have rows='),
        ('ce=dict()', "ce=dict(needs='x')", "row 'ce' needs 'x': name a row"),
        ('ce=dict()', "ce=dict(needs='ce')", "row 'ce' needs 'ce': name a row"),
        ("['--report', 'test', '--folds', '2']", "'--folds 2'", "judge of .* but is '--folds 2'"),
        ("'--folds', '2'", "['--folds', '2']", 'judge of .* must be a list'),
    ):
        (tmp_path / 'a.py').write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            study.read_study(tmp_path / 'a.py')
    misfit = 'ce=dict(change=dict(model=dict(type=dict(a=1))))'
    (tmp_path / 'a.py').write_text(text.replace('ce=dict()', misfit))
    (tmp_path / 'base.py').write_text(f"_base_ = '{BASE}'")
    with pytest.raises(ValueError, match=r"row 'ce' does not fit base\.py"):
        study.plan(study.read_study(tmp_path / 'a.py'), tmp_path, tmp_path)


def test_rows_and_seeds_are_chosen_and_changes_named(tmp_path, study):
    (tmp_path / 'a.py').write_text(STUDY.format(prior='prior.json'))
    (tmp_path / 'base.py').write_text(f"_base_ = '{BASE}'")
    runs = study.plan(study.read_study(tmp_path / 'a.py'), tmp_path, tmp_path)
    assert [run.name for run in runs] == ['ce-seed0', 'weights-seed0', 'ce-seed1']
    assert [run.name for run in study.chosen(runs, ['ce'], [1])] == ['ce-seed1']
    with pytest.raises(ValueError, match=r"no row \['x'\]: the study has \['ce', 'weights'\]"):
        list(study.chosen(runs, ['x'], None))
    with pytest.raises(ValueError, match=r'no seed \[7\]: the study has \[0, 1\]'):
        list(study.chosen(runs, None, [0, 7]))
    with pytest.raises(ValueError, match='has no finished run'):
        study.make_tables([], tmp_path)
    for old, new, message in (
        ({'a': {'b': 1}}, {'a': {'b': 2}}, 'a.b=1, now 2'),
        ({'a': {'b': 1}}, {'a': {}}, 'a.b is gone'),
        ({'a': {}}, {'a': {'b': 1}}, 'a.b is new'),
        ({'a': [1, {'b': 2}]}, {'a': [1, {'b': 3}]}, 'a[1].b=2, now 3'),
        ({'a': (1, 2)}, {'a': (1, 2)}, ''),
    ):
        assert study.difference(old, new) == message


@pytest.fixture
def needy(tmp_path, study):
    """A study whose row ce needs weights, and its runs."""
    text = STUDY.format(prior='prior.json').replace('ce=dict()', "ce=dict(needs='weights')")
    (tmp_path / 'a.py').write_text(text)
    (tmp_path / 'base.py').write_text(f"_base_ = '{BASE}'")
    grid = Config(dict(study.read_study(tmp_path / 'a.py'), judge=[]))
    return grid, study.plan(grid, tmp_path, tmp_path)


def written(command):
    """What a tool that is only seemingly run leaves behind."""
    if '--out' in command:
        Path(command[command.index('--out') + 1]).mkdir()
    return 0


def test_a_run_waits_for_what_it_needs(needy, study, monkeypatch):
    grid, runs = needy
    assert [run.name for run in runs] == ['weights-seed0', 'ce-seed0', 'ce-seed1']
    trained, status = [], dict(train=1)

    def call(command, *_):
        if command[0] == 'train.py':
            time.sleep(0.2)
            trained.append(command[-2])
        return written(command) or status['train']

    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / 'last_checkpoint').write_text('a.pth')
    for status['train'], expected in ((1, 3), (0, 0)):
        workers = study.Workers([], 3)
        monkeypatch.setattr(workers, 'call', call)
        log = workers.work(runs)
        assert len(log) == expected
        assert trained[0] == str(runs[0].folder)
        assert all('needs weights-seed0, which is not' in reason for reason in log[1:])
    # In the tables the first row of the file is the first.
    done = study.finished(runs, grid)
    assert [run.name for run in done] == ['ce-seed0', 'ce-seed1', 'weights-seed0']
    assert len(trained) == 4  # the first one twice, none of the others before it was finished
    assert 'needs weights-seed0' in study.Workers(['other'], 1).do(runs[1])


def test_a_run_waits_for_what_another_process_trains(needy, study, monkeypatch):
    _, (needed, run, _) = needy
    workers, log = study.Workers([], 1), []
    monkeypatch.setattr(workers, 'call', lambda command, *_: written(command))
    for each in (needed, run):
        each.folder.mkdir(parents=True)
        (each.folder / 'last_checkpoint').write_text('a.pth')
    with (needed.folder / 'lock').open('w') as other:
        assert study.locked(other)
        thread = threading.Thread(target=lambda: log.append(workers.do(run)))
        thread.start()
        thread.join(1)
        assert thread.is_alive() and not (run.folder / 'begun.json').exists()
        study.write_json(needed.folder / 'finished.json', dict(judge=[]))
    thread.join(10)
    assert log == [''] and run.is_finished([])


def test_a_run_belongs_to_what_it_needed(needy, study, monkeypatch, capsys):
    grid, runs = needy
    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / 'last_checkpoint').write_text('a.pth')
    workers = study.Workers([], 1)
    monkeypatch.setattr(workers, 'call', lambda command, *_: written(command))
    assert workers.work(runs) == [] and len(study.finished(runs, grid)) == 3
    study.refuse_changes(runs)
    shutil.rmtree(runs[0].folder)
    message = 'ce-seed0 was begun with an earlier weights-seed0: remove'
    with pytest.raises(ValueError, match=message):
        study.refuse_changes(runs[1:])
    runs[0].folder.mkdir()
    (runs[0].folder / 'last_checkpoint').write_text('a.pth')
    assert workers.do(runs[0]) == ''
    with pytest.raises(ValueError, match=message):
        study.refuse_changes(runs[1:])
    assert [run.name for run in study.finished(runs, grid)] == ['weights-seed0']
    assert 'left out of the tables: ce-seed1 was begun with an earlier' in capsys.readouterr().err
    # What a wanted run needs is looked at as well.
    runs[0].config.train_cfg.max_iters += 1
    with pytest.raises(ValueError, match=r'weights-seed0 was begun with another.*max_iters=400'):
        study.refuse_changes(runs[1:])
    assert study.finished(runs[:1], grid) == []
    assert 'weights-seed0 was begun with another config' in capsys.readouterr().err


def test_a_run_belongs_to_one_process_and_one_way_to_judge(tmp_path, study, monkeypatch):
    run = study.Run('a', 0, tmp_path / 'runs/a-seed0', tmp_path / 'configs/a-seed0.py', Config())
    workers = study.Workers(['--report', 'test'], 1)
    calls = []

    def call(command, *_):
        calls.append(command[0])
        assert 'train.py' in command or str(run.folder / 'a.pth') in command
        return written(command)

    monkeypatch.setattr(workers, 'call', call)
    seconds = itertools.count()
    monkeypatch.setattr(study.time, 'monotonic', lambda: next(seconds))
    monkeypatch.setattr(study.time, 'sleep', lambda _: None)
    assert 'leaves no checkpoint behind' in workers.do(run)
    (run.folder / 'last_checkpoint').write_text('/before/it/was/moved/a.pth')
    with (run.folder / 'lock').open('w') as other:
        assert study.locked(other)
        assert 'another process is at it' in workers.do(run)
    del calls[:]
    assert workers.do(run) == '' and calls == ['train.py', 'choose_operating_point.py']
    assert workers.do(run) == '' and len(calls) == 2
    # Another judge looks again at what is trained.
    workers.judge = ['--report', 'val']
    assert not run.is_finished(workers.judge)
    assert workers.do(run) == '' and calls[2:] == ['choose_operating_point.py']
    # One that is stopped is judged by nobody, nor is one whose record is broken.
    monkeypatch.setattr(workers, 'call', lambda *_: 1)
    workers.judge = ['--report', 'train']
    assert 'judge.log' in workers.do(run) and run.is_finished(['--report', 'val'])
    (run.folder / 'finished.json').write_text('{"judge": [')
    assert 'finished.json is no complete JSON' in workers.do(run)


def test_a_config_that_no_file_holds(tmp_path, study):
    config = Config(dict(weight=float('inf')))
    run = study.Run('a', 0, tmp_path / 'runs/a-seed0', tmp_path / 'configs/a-seed0.py', config)
    log = study.Workers([], 1).do(run)
    assert 'a-seed0.tmp.py does not hold what the study says' in log and 'inf' in log
    assert not run.file.exists()


@pytest.mark.parametrize('before', [signal.SIG_DFL, signal.SIG_IGN])
def test_a_terminal_that_closes_stops_a_study(tmp_path, study, monkeypatch, before):
    taken = {signal.SIGHUP: before}
    monkeypatch.setattr(signal, 'signal', taken.__setitem__)
    monkeypatch.setattr(signal, 'getsignal', taken.get)
    monkeypatch.setattr(sys, 'argv', ['study.py', str(tmp_path / 'none.py')])
    with pytest.raises(SystemExit, match=r'none\.py'):
        study.main()
    assert taken[signal.SIGTERM] is study.stop
    assert (taken[signal.SIGHUP] is study.stop) == (before == signal.SIG_DFL)
