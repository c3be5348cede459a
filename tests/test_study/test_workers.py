"""Runs that are trained and judged by tools that are only seemingly run."""

import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_ltmi.evaluation import class_rows, write_rows
from mmseg_ltmi.study import Run, Workers, refuse_changes, workers
from mmseg_ltmi.study.run import difference
from mmseg_ltmi.study.tables import finished, make_tables

JUDGE = ['--report', 'test']


class Played(Workers):
    """Leaves behind what the tools would, and keeps their commands."""

    def __init__(self, judge=JUDGE, number=1, failing=()):
        super().__init__(Path('tools'), judge, number)
        self.failing = failing
        self.commands = []

    @property
    def done(self):
        """Names of the runs, and which tool."""
        return [(Path(command[3]).name, command[0]) for command in self.commands]

    def call(self, command, log, lock):
        self.commands.append(command)
        if command[0] in self.failing:
            return 1
        if command[0] == 'train.py':
            folder = Path(command[3])
            (folder / 'a.pth').touch()
            (folder / 'last_checkpoint').write_text(str(folder / 'a.pth'))
        else:
            out = Path(command[command.index('--out') + 1])
            out.mkdir()
            (out / 'operating_point.json').write_text(str(self.judge))
        return 0


TRAIN, CHOOSE = 'train.py', 'choose_operating_point.py'


def make(folder, name='a', needs=(), **config):
    file = folder / f'configs/{name}-seed0.py'
    return Run(name, 0, folder / f'runs/{name}-seed0', file, Config(dict(**config)), needs)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Nobody has patience."""
    monkeypatch.setattr(workers, 'PATIENCE', 0)
    locked = workers.locked
    monkeypatch.setattr(workers, 'locked', lambda file, patience=0: locked(file, 0))


@pytest.fixture
def school(tmp_path):
    """A teacher and two students."""
    teacher = make(tmp_path, 'teacher', size=3)
    return teacher, *(make(tmp_path, name, (teacher,)) for name in ('ann', 'bob'))


def test_a_run_is_trained_once_and_judged_once_by_each_judge(tmp_path):
    run = make(tmp_path)
    played = Played()
    assert played.work([run]) == [] and played.done == [('a-seed0', TRAIN), ('a-seed0', CHOOSE)]
    assert run.is_finished(JUDGE)
    assert played.work([run]) == [] and len(played.commands) == 2
    other = Played(['--report', 'val'])
    assert not run.is_finished(other.judge)
    assert other.work([run]) == [] and other.done == [('a-seed0', CHOOSE)]
    assert run.is_finished(other.judge) and not run.is_finished(JUDGE)


def test_a_judge_that_fails_or_writes_nothing_loses_nothing(tmp_path):
    run = make(tmp_path)
    assert Played().work([run]) == []
    written = (run.point / 'operating_point.json').read_text()
    assert 'judge.log' in Played(['--typo'], failing=[CHOOSE]).work([run])[0]

    mute = Played(['--help'])
    mute.call = lambda *_: 0
    assert "['--help'] wrote no operating point" in mute.work([run])[0]
    assert run.is_finished(JUDGE) and (run.point / 'operating_point.json').read_text() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ['configs', 'runs']


@pytest.mark.parametrize('lost', ['operating_point', 'finished.json', 'damaged'])
def test_what_is_lost_of_a_judgement_is_made_again(tmp_path, lost):
    run = make(tmp_path)
    assert Played().work([run]) == []
    if lost == 'operating_point':
        shutil.rmtree(run.point)
    elif lost == 'finished.json':
        (run.folder / lost).unlink()
    else:
        (run.folder / 'finished.json').write_text('{"judge": [')
    assert not run.is_finished(JUDGE)
    assert Played().work([run]) == [] and run.is_finished(JUDGE)


def test_a_training_without_checkpoint_is_not_trained(tmp_path):
    run, played = make(tmp_path), Played()
    played.call = lambda *_: 0
    assert 'leaves no checkpoint behind: give it a CheckpointHook' in played.work([run])[0]
    assert not run.is_trained


def test_a_moved_folder_and_a_checkpoint_elsewhere(tmp_path):
    run = make(tmp_path / 'old')
    assert Played().work([run]) == []
    shutil.move(tmp_path / 'old', tmp_path / 'new')
    run, other = make(tmp_path / 'new'), Played(['--report', 'val'])
    assert other.work([run]) == [] and str(run.folder / 'a.pth') in other.commands[0]
    # Half trained, it goes on from its own checkpoint, in the folder or by CheckpointHook.out_dir.
    shutil.rmtree(run.point)
    for name, place in (
        ('gone/a.pth', run.folder / 'a.pth'),
        ('out/b.pth', tmp_path / 'out/b.pth'),
    ):
        (run.folder / 'finished.json').unlink(missing_ok=True)
        place.parent.mkdir(exist_ok=True)
        place.touch()
        (run.folder / 'last_checkpoint').write_text(str(tmp_path / name))
        assert Played(failing=[TRAIN]).work([run])
        assert (run.folder / 'last_checkpoint').read_text() == str(place)
    (run.folder / 'last_checkpoint').write_text('')  # killed while it wrote that
    assert Played(failing=[TRAIN]).work([run])
    assert not (run.folder / 'last_checkpoint').exists()


def test_a_run_belongs_to_one_process(tmp_path):
    run, played = make(tmp_path), Played()
    run.folder.mkdir(parents=True)
    with (run.folder / 'lock').open('w') as other:
        assert workers.locked(other)
        assert played.work([run]) == ['a-seed0: another process is at it']
    assert played.work([run]) == []


def test_a_run_begins_when_what_it_needs_is_finished(school):
    failing = Played(number=3, failing=[TRAIN])
    log = failing.work(school)
    assert failing.done == [('teacher-seed0', TRAIN)]
    assert [text.split(',')[0] for text in log[1:]] == [
        f'{name}-seed0: needs teacher-seed0' for name in ('ann', 'bob')
    ]
    played = Played(number=3)
    assert played.work(school) == []
    assert [name for name, _ in played.done[:2]] == ['teacher-seed0', 'teacher-seed0']
    assert len(played.done) == 6


def test_a_run_waits_for_what_another_process_trains(school):
    teacher, student, _ = school
    played, log = Played(), []
    teacher.folder.mkdir(parents=True)
    with (teacher.folder / 'lock').open('w') as other:
        assert workers.locked(other)
        thread = threading.Thread(target=lambda: log.append(played.do(student)))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and not played.commands
        teacher.point.mkdir()
        (teacher.point / 'operating_point.json').touch()
        teacher.mark(JUDGE)
    thread.join(10)
    assert log == [''] and student.is_finished(JUDGE)


def test_a_run_may_wait_for_another_process_to_begin(school, monkeypatch):
    monkeypatch.setattr(workers, 'PATIENCE', 30)
    teacher, student, _ = school
    log = []
    thread = threading.Thread(target=lambda: log.append(Played().do(student)))
    thread.start()
    time.sleep(0.2)
    assert Played().do(teacher) == ''
    thread.join(10)
    assert log == ['']


def test_a_run_that_waits_can_be_stopped(school):
    teacher, student, _ = school
    played, log = Played(), []
    teacher.folder.mkdir(parents=True)
    with (teacher.folder / 'lock').open('w') as other:
        assert workers.locked(other)
        thread = threading.Thread(target=lambda: log.append(played.do(student)))
        thread.start()
        played.stopped.set()
        thread.join(10)
        assert not thread.is_alive() and not played.commands
    assert Played().do(teacher) == '' and played.do(student) == '' and not played.commands


def test_a_student_belongs_to_the_teacher_that_it_had(school):
    assert Played().work(school) == []
    refuse_changes(school)
    assert finished(school, JUDGE) == (list(school), [])
    # Its teacher is trained again.
    shutil.rmtree(school[0].folder)
    message = 'ann-seed0 was begun with an earlier teacher-seed0: remove'
    with pytest.raises(ValueError, match=message):
        refuse_changes(school[1:])
    assert Played().do(school[0]) == ''
    with pytest.raises(ValueError, match=message):
        refuse_changes(school[1:])
    found, others = finished(school, JUDGE)
    assert found == [school[0]] and others[1] == 'bob-seed0 was begun with an earlier teacher-seed0'
    # Its record is gone, so what it had is not known.
    (school[1].folder / 'begun.json').unlink()
    assert 'earlier teacher-seed0' in school[1].outdated()


def test_a_run_of_another_config_is_refused_and_not_compared(school):
    assert Played().work(school) == []
    school[0].config.size = 4
    changed = 'was begun with another config, size=3, now 4'
    with pytest.raises(ValueError, match=f'teacher-seed0 {changed}: remove'):
        refuse_changes(school[1:2])  # by what it needs
    assert finished(school, JUDGE)[1] == [
        f'teacher-seed0 {changed}',
        f'ann-seed0 needs teacher-seed0, which {changed}',
        f'bob-seed0 needs teacher-seed0, which {changed}',
    ]


@pytest.mark.parametrize('trained', [False, True])
def test_a_run_that_lost_its_config_is_not_gone_on_with(tmp_path, trained):
    run = make(tmp_path)
    assert bool(Played(failing=[] if trained else [TRAIN]).work([run])) != trained
    run.file.write_text('size = ')
    with pytest.raises(ValueError, match='a-seed0 has a config that cannot be read'):
        refuse_changes([run])
    run.file.unlink()
    with pytest.raises(ValueError, match='a-seed0 has lost the config'):
        refuse_changes([run])
    shutil.rmtree(run.folder)
    refuse_changes([run])


def test_a_config_that_no_file_holds(tmp_path):
    run = make(tmp_path, weight=float('inf'))
    (log,) = Played().work([run])
    assert 'a-seed0.tmp.py does not hold what the study says' in log and 'inf' in log
    assert not run.file.exists()


def test_the_first_difference_of_two_configs_is_named():
    for old, new, message in (
        ({'a': {'b': 1}}, {'a': {'b': 2}}, 'a.b=1, now 2'),
        ({'a': {'b': 1}}, {'a': {}}, 'a.b is gone'),
        ({'a': {}}, {'a': {'b': 1}}, 'a.b is new'),
        ({'a': [1, {'b': 2}]}, {'a': [1, {'b': 3}]}, 'a[1].b=2, now 3'),
        ({'a': (1, 2)}, {'a': (1, 2)}, ''),
    ):
        assert difference(old, new) == message


def test_tables_are_of_the_readings_and_rows_that_there_are(tmp_path):
    out = tmp_path / 'comparison'
    with pytest.raises(ValueError, match='has no finished run of this study'):
        make_tables([], ['a'], out)
    runs = [make(tmp_path, name) for name in ('b', 'a')]
    areas = torch.tensor([[3.0, 1, 0], [4, 2, 1], [3, 2, 0], [4, 1, 1]])
    for run in runs:
        for reading in ('natural', 'RankSEG'):
            rows = class_rows(areas, ['x', 'y', 'z'], [6, 3, 1])
            write_rows(rows, run.point / f'per_class/{reading}.json')
    make_tables(runs, ['a', 'b'], out)
    for run in runs:
        (run.point / 'per_class/RankSEG.json').unlink()
    text = make_tables(runs, ['a', 'b'], out)
    assert [line for line in text.splitlines() if line[:2] == '##'] == [
        '## natural',
        '## All readings',
    ]
    assert sorted(path.name for path in out.iterdir()) == ['natural', 'readings.md', 'runs.csv']
    lines = (out / 'runs.csv').read_text().splitlines()[1:]
    assert lines == [f'natural,{name},0,41.67,75.0,50.0,0.0,58.33' for name in 'ab']
