"""Runs that are trained and judged by tools that are only seemingly run."""

import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_ltmi.evaluation import class_rows, write_rows
from mmseg_ltmi.study import Run, Workers, finished, make_tables, refuse_changes, workers
from mmseg_ltmi.study.lock import locked
from mmseg_ltmi.study.run import difference

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
            assert Path(command[3]) not in out.parents  # compare_runs takes the newest file there
            write_points(out, str(self.judge))
        return 0


TRAIN, CHOOSE = 'train.py', 'choose_operating_point.py'


def write_points(folder, text=''):
    for file in ('operating_point.json', 'per_class/natural.json'):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)


def make(folder, name='a', needs=(), **config):
    file = folder / f'configs/{name}-seed0.py'
    return Run(name, 0, folder / f'runs/{name}-seed0', file, Config(dict(**config)), needs)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Nobody has patience."""
    monkeypatch.setattr(workers, 'PATIENCE', 0)
    monkeypatch.setattr(workers, 'locked', lambda file: locked(file, patience=0))


@contextmanager
def in_use(run):
    """Another process is at it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / 'lock').open('w') as lock:
        assert locked(lock)
        yield


@pytest.fixture
def started():
    """Does a run in a thread, which lives for a while; its future."""
    pools = []

    def start(played, run, seconds=0.5):
        pools.append(ThreadPoolExecutor(1))
        future = pools[-1].submit(played.do, run)
        assert wait([future], seconds).not_done
        return future

    yield start
    for pool in pools:
        pool.shutdown()


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


def test_points_that_are_being_exchanged_are_of_no_judge(tmp_path, monkeypatch):
    run = make(tmp_path)
    assert Played().work([run]) == []

    def full(*_):
        raise OSError('the disk is full')

    with monkeypatch.context() as patched:
        patched.setattr(workers, 'move', full)
        assert 'the disk is full' in Played(['--report', 'val']).work([run])[0]
    assert not run.is_finished(JUDGE) and not run.is_finished(['--report', 'val'])
    assert finished([run], JUDGE)[1] == [f'a-seed0 is trained, but not judged by {JUDGE}']
    assert Played().work([run]) == [] and run.is_finished(JUDGE)


def test_points_that_lie_elsewhere_are_exchanged_as_well(tmp_path):
    run = make(tmp_path)
    assert Played().work([run]) == []
    shutil.move(run.point, tmp_path / 'elsewhere')
    run.point.symlink_to(tmp_path / 'elsewhere')
    other = Played(['--report', 'val'])
    assert other.work([run]) == []
    assert (run.point / 'operating_point.json').read_text() == str(other.judge)
    assert (tmp_path / 'elsewhere/operating_point.json').read_text() == str(JUDGE)


@pytest.mark.parametrize('lost', ['operating_point', 'per_class', 'finished.json', 'damaged'])
def test_what_is_lost_of_a_judgement_is_made_again(tmp_path, lost):
    run = make(tmp_path)
    assert Played().work([run]) == []
    if lost == 'operating_point':
        shutil.rmtree(run.point)
    elif lost == 'per_class':
        shutil.rmtree(run.point / lost)
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


def test_a_checkpoint_that_is_gone(tmp_path):
    run = make(tmp_path)
    assert Played().work([run]) == []
    (run.folder / 'a.pth').unlink()
    assert 'its checkpoint is gone' in Played(['--report', 'val']).work([run])[0]
    (run.folder / 'finished.json').unlink()
    assert 'last_checkpoint names is gone: remove it to begin anew' in Played().work([run])[0]
    (run.folder / 'last_checkpoint').unlink()
    played = Played()
    assert played.work([run]) == [] and '--resume' not in played.commands[0]


def test_a_moved_folder_and_a_checkpoint_elsewhere(tmp_path):
    run = make(tmp_path / 'old')
    assert Played().work([run]) == []
    shutil.move(tmp_path / 'old', tmp_path / 'new')
    run, other = make(tmp_path / 'new'), Played(['--report', 'val'])
    assert other.work([run]) == [] and str(run.folder / 'a.pth') in other.commands[0]
    # Half trained, it goes on from its own checkpoint, in the folder or by CheckpointHook.out_dir.
    said = run.folder / 'last_checkpoint'
    for name, place in (
        ('gone/a.pth', run.folder / 'a.pth'),
        ('copied/a.pth', run.folder / 'a.pth'),
        ('out/b.pth', tmp_path / 'out/b.pth'),
    ):
        (run.folder / 'finished.json').unlink(missing_ok=True)
        if not name.startswith('gone'):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        said.write_text(str(tmp_path / name))
        going_on = Played(failing=[TRAIN])
        assert going_on.work([run]) and said.read_text() == str(place)
        # The file says where to go on from, and a load_from would go before it.
        assert going_on.commands[0][-3:] == ['--resume', '--cfg-options', 'load_from=None']
    said.write_text('')  # killed while it wrote that
    anew = Played()
    assert anew.work([run]) == [] and '--resume' not in anew.commands[0]


def test_a_first_start_loads_what_its_config_says(tmp_path):
    played = Played()
    assert played.work([make(tmp_path, load_from='pretrained.pth')]) == []
    assert not {'--resume', '--cfg-options'} & set(played.commands[0])


def test_a_run_belongs_to_one_process(tmp_path):
    run, played = make(tmp_path), Played()
    with in_use(run):
        assert played.work([run]) == ['a-seed0: another process is at it']
    assert played.work([run]) == []


def test_what_another_process_has_finished_is_not_done_again(tmp_path, monkeypatch, started):
    run, played = make(tmp_path), Played()
    monkeypatch.setattr(workers, 'locked', locked)
    with in_use(run):
        future = started(played, run)
        write_points(run.point)
        run.mark(JUDGE)
    assert future.result(10) == '' and not played.commands

    class Late(Played):
        def do(self, run):
            return f'{run.name}: another process is at it'

    assert Late().work([run]) == []


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


def test_a_run_waits_for_what_another_process_trains(school, started):
    teacher, student, _ = school
    played = Played()
    with in_use(teacher):
        future = started(played, student)
        assert not played.commands
        write_points(teacher.point)
        teacher.mark(JUDGE)
    assert future.result(10) == '' and student.is_finished(JUDGE)


def test_a_run_may_wait_for_another_process_to_begin(school, monkeypatch, started):
    monkeypatch.setattr(workers, 'PATIENCE', 30)
    future = started(Played(), school[1])
    assert Played().do(school[0]) == ''
    assert future.result(10) == ''


def test_a_run_waits_while_another_process_is_at_another_run(school, tmp_path, started):
    with in_use(make(tmp_path, 'other')):
        future = started(Played(), school[1])
        assert Played().do(school[0]) == ''
        assert future.result(10) == ''


def test_a_trained_run_is_judged_whatever_became_of_what_it_needed(school):
    assert Played().work(school) == []
    assert Played(['--report', 'val']).work(school[1:]) == []


def test_a_run_that_waits_can_be_stopped(school, started):
    teacher, student, _ = school
    played = Played()
    with in_use(teacher):
        future = started(played, student)
        played.stopped.set()
        assert future.result(10) and not played.commands
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
    assert 'has lost' in school[1].outdated() and 'begun.json' in school[1].outdated()


def test_a_student_keeps_its_teacher_when_there_are_more(school, tmp_path):
    assert Played().work(school) == []
    more = make(tmp_path, 'more')
    student = school[1]._replace(needs=(school[0], more))
    assert Played().work([more, student]) == [] and student.outdated() == ''


def test_a_run_of_before_there_were_records_stays(school):
    assert Played().work(school) == []
    for run in school:
        (run.folder / 'begun.json').unlink()
    assert Played(['--report', 'val']).work(school) == []
    assert finished(school, ['--report', 'val']) == (list(school), [])


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
    names = ['lock', 'natural', 'readings.md', 'runs.csv']
    assert sorted(path.name for path in out.iterdir()) == names
    lines = (out / 'runs.csv').read_text().splitlines()[1:]
    assert lines == [f'natural,{name},0,41.67,75.0,50.0,0.0,58.33' for name in 'ab']
    assert (out / 'natural/difference.png').exists()
    # Another comparison that was made beside them stays, a plot of rows that are no more does not.
    (out / 'mine').mkdir()
    (out / 'mine/comparison.md').touch()
    make_tables(runs[1:], ['a', 'b'], out)
    assert (out / 'mine/comparison.md').exists()
    assert not (out / 'natural/difference.png').exists()
