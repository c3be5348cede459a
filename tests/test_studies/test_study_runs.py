"""Which runs are trained and judged, by commands that are only seemingly run."""

import json
import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager

import pytest
import run
import torch
from filelock import FileLock
from mmengine.config import Config
from run import Workers
from study_runs import Judge, Run, Study
from study_tables import make_tables
from tiny import ROOT

from mmseg_ltmi.core.json_file import write_json
from mmseg_ltmi.evaluation import class_rows, write_rows

JUDGE = Judge(['--report', 'test'])


class Played(Workers):
    """Leaves behind what the commands would, and keeps them."""

    def __init__(self, judge=JUDGE, number=1, failing=()):
        super().__init__(judge, number)
        self.failing = failing
        self.commands = []

    def call(self, run, command):
        self.commands.append((run.name, *map(str, command)))
        if {command[0], run.name} & set(self.failing):
            raise RuntimeError('it failed')
        if command[0] == 'train':
            (run.folder / 'a.pth').touch()
            (run.folder / 'last_checkpoint').write_text(str(run.folder / 'a.pth'))
        elif command[0] == 'choose':
            out = command[command.index('--out') + 1]
            areas = torch.tensor([[3.0, 1, 0], [4, 2, 1], [3, 2, 0], [4, 1, 1]])
            rows = class_rows(areas, ['x', 'y', 'z'], [6, 3, 1])
            for reading in ['natural'] + ['RankSEG'] * ('--rankseg' in self.judge.choose):
                write_rows(rows, out / f'per_class/{reading}.json')

    @property
    def done(self):
        return [command[:2] for command in self.commands]


def work(*runs, **kwargs):
    """Do the runs; the failures, and which commands were run."""
    played = Played(**kwargs)
    return played.work(list(runs)), played.done


def make(folder, row='a', needs=(), **config):
    return Run(row, 0, folder, Config(dict(size=3, **config)), needs)


@pytest.fixture
def teacher(tmp_path):
    return make(tmp_path, 'teacher')


@pytest.fixture
def student(tmp_path, teacher):
    return make(tmp_path, 'student', (teacher,))


TRAIN, CHOOSE = ('a-seed0', 'train'), ('a-seed0', 'choose')


def test_a_finished_run_is_skipped_and_another_judge_judges_it_anew(tmp_path):
    run, other = make(tmp_path), Judge(['--report', 'val'])
    assert work(run) == ([], [TRAIN, CHOOSE]) and run.is_finished(JUDGE)
    # A study that was killed may leave part of a judgement behind.
    write_json(run.folder / 'new_operating_point/per_class/RankSEG.json', [])
    assert work(run) == ([], [])
    assert work(run, judge=other) == ([], [CHOOSE])
    assert run.is_finished(other) and not run.is_finished(JUDGE)
    assert [file.name for file in (run.judgement / 'per_class').iterdir()] == ['natural.json']


def test_a_judge_with_a_memory_makes_it_and_shows_it_to_choose(tmp_path):
    run = make(tmp_path)
    work(run)
    judge = Judge(JUDGE.choose, ['--centers', '4'])
    assert not run.is_finished(judge)
    played = Played(judge)
    assert played.work([run]) == []
    (_, *memory), (_, *choose) = played.commands
    file = str(run.folder / 'class_memory.pth')
    assert memory[0] == 'memory' and memory[-2:] == ['--centers', '4'] and file in memory
    assert choose[0] == 'choose' and choose[-2:] == ['--memory', file]
    assert run.is_finished(judge) and not run.is_finished(JUDGE)


def test_progress_counts_the_runs_that_are_left(tmp_path, monkeypatch):
    shown = []

    @contextmanager
    def bar(total, what):
        shown.append(total)
        yield lambda: shown.append('step')

    monkeypatch.setattr('run.progress_bar', bar)
    runs = [make(tmp_path, row) for row in 'abc']
    work(runs[0])
    work(*runs, failing=['c-seed0'])
    assert shown == [1, 'step', 2, 'step', 'step']


def test_a_judge_that_fails_or_writes_nothing_leaves_the_earlier_judgement(tmp_path):
    run = make(tmp_path)
    work(run)
    assert work(run, judge=Judge(['--typo']), failing=['choose'])[0] == ['a-seed0: it failed']
    silent = Played(Judge(['--help']))
    silent.call = lambda *_: None
    assert 'new_operating_point' in silent.work([run])[0]
    assert run.is_finished(JUDGE)


@pytest.mark.parametrize('lost, redone', [('operating_point', [CHOOSE]), ('trained.json', [TRAIN])])
def test_a_step_whose_result_is_lost_is_done_again(tmp_path, lost, redone):
    run = make(tmp_path)
    work(run)
    path = run.folder / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_text('{"damaged')
    assert work(run) == ([], redone) and run.is_finished(JUDGE)


def test_an_unfinished_run_is_resumed_also_where_it_was_moved_to(tmp_path):
    run = make(tmp_path / 'old', load_from='pretrained.pth')
    first = Played(failing=['choose'])
    first.work([run])
    assert '--resume' not in first.commands[0] and '--cfg-options' not in first.commands[0]
    (run.folder / 'trained.json').unlink()
    shutil.move(tmp_path / 'old', tmp_path / 'new')

    run = make(tmp_path / 'new', load_from='pretrained.pth')
    played = Played(failing=['train'])
    assert played.work([run]) == ['a-seed0: it failed']
    # last_checkpoint says where to resume from, and a load_from would go before it.
    assert played.commands[0][-3:] == ('--resume', '--cfg-options', 'load_from=None')
    assert (run.folder / 'last_checkpoint').read_text() == str(run.folder / 'a.pth')

    # Killed before its first checkpoint was complete, it starts from the beginning.
    (run.folder / 'last_checkpoint').write_text('')
    played = Played()
    assert played.work([run]) == [] and '--resume' not in played.commands[0]


def test_a_training_must_leave_a_checkpoint(tmp_path):
    played = Played()
    played.call = lambda *_: None
    assert 'CheckpointHook' in played.work([make(tmp_path)])[0]


def test_a_run_of_another_config_is_refused_and_left_out_of_the_tables(tmp_path, capsys):
    run, other = make(tmp_path), make(tmp_path, 'b')
    work(run)
    run.config.size = 4
    changed = 'a-seed0: it began with another config (size was 3, now 4): remove'
    failures, done = work(run, other)
    assert [text.startswith(changed) for text in failures] == [True]
    assert done == [('b-seed0', 'train'), ('b-seed0', 'choose')]
    study = Study([run, other, make(tmp_path, 'c')], ['a', 'b', 'c'], JUDGE)
    assert '| b | 1 |' in make_tables(study, tmp_path / 'tables')
    messages = capsys.readouterr().err.splitlines()  # nothing of c, which is not trained yet
    assert len(messages) == 1 and messages[0].startswith(f'left out of the tables: {changed}')
    run.file.unlink()
    assert 'FileNotFoundError' in work(run)[0][0]
    shutil.rmtree(run.folder)
    assert work(run) == ([], [TRAIN, CHOOSE])


def test_a_run_that_fails_stops_no_other(tmp_path):
    runs = [make(tmp_path, row) for row in 'abc']
    failures, _ = work(*runs, failing=['b-seed0'], number=2)
    assert failures == ['b-seed0: it failed']
    assert [run.is_finished(JUDGE) for run in runs] == [True, False, True]


def test_a_run_waits_for_what_it_needs(teacher, student):
    failures, done = work(teacher, student, number=2, failing=['teacher-seed0'])
    assert failures[1] == 'student-seed0: it needs teacher-seed0, which is not trained'
    assert done == [('teacher-seed0', 'train')]
    assert work(student)[0] == [failures[1]]
    failures, done = work(teacher, student, number=2)
    assert not failures and [name for name, _ in done[:2]] == ['teacher-seed0'] * 2


def test_a_student_belongs_to_the_teacher_that_it_began_with(teacher, student):
    work(teacher, student)
    shutil.rmtree(teacher.folder)
    work(teacher)
    assert 'it began with an earlier teacher-seed0: remove' in work(student)[0][0]


def test_a_student_does_not_begin_with_a_teacher_of_another_config(teacher, student):
    work(teacher)
    teacher.config.size = 4
    failures, done = work(teacher, student)
    assert 'student-seed0: teacher-seed0, which it needs: it began with another' in failures[1]
    assert not done and not student.folder.exists()


def test_two_processes_do_not_train_one_run(tmp_path):
    run = make(tmp_path)
    work(make(tmp_path, 'b'))
    with FileLock(run.file.with_suffix('.lock')):
        assert work(run) == (['a-seed0: another process is at it'], [])
    assert work(run) == ([], [TRAIN, CHOOSE])


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Takes the place of mmseg_ltmi's command line: a module of the given text."""

    def write(text):
        (tmp_path / 'instead.py').write_text(text)
        monkeypatch.setattr(run, 'MODULE', 'instead')
        monkeypatch.setenv('PYTHONPATH', str(tmp_path))

    return write


def test_a_training_that_outlived_its_study_is_not_joined_by_another(tmp_path, command):
    command('raise SystemExit(0)')
    a = make(tmp_path)
    a.file.parent.mkdir()
    with FileLock(a.file.with_suffix('.child.lock')):
        assert 'train ended with status 1' in Workers(JUDGE, 1).work([a])[0]
    assert str(a.file.with_suffix('.child.lock')) in (a.folder / 'train.log').read_text()
    assert 'CheckpointHook' in Workers(JUDGE, 1).work([a])[0]


def test_sigterm_stops_a_study_and_its_children(tmp_path, command):
    pid, before = tmp_path / 'pid', signal.getsignal(signal.SIGTERM)
    command(f"""
import os, pathlib, time
pathlib.Path(r'{pid}.part').write_text(str(os.getpid()))
os.replace(r'{pid}.part', r'{pid}')
time.sleep(60)
""")
    base = ROOT / 'configs/demo/ce_fcn-r18_400_shapes-128x128.py'
    (tmp_path / 'study.py').write_text(f"base, seeds, rows = '{base}', (0, 1), dict(a=dict())")

    def stop():
        while not pid.exists():
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    start = time.monotonic()
    try:
        with pytest.raises(SystemExit, match='stopped; the same command goes on'):
            run.main([str(tmp_path / 'study.py'), '--out', str(tmp_path / 'out')])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - start < 30
    stopper.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert [path.name for path in (tmp_path / 'out/runs').iterdir()] == ['a-seed0']


def test_tables_are_of_the_readings_that_there_are(tmp_path):
    runs = [make(tmp_path, row) for row in 'ba']
    out = tmp_path / 'comparison'
    study = Study(runs, ['a', 'b'], Judge([*JUDGE.choose, '--rankseg']))
    with pytest.raises(ValueError, match='has no finished run of this study'):
        make_tables(study, out)
    for judge, titles in (
        (study.judge, ['## RankSEG', '## natural', '## All readings']),
        (JUDGE, ['## natural', '## All readings']),
    ):
        work(*runs, judge=judge)
        text = make_tables(study._replace(judge=judge), out)
        assert [line for line in text.splitlines() if line[:2] == '##'] == titles
    assert (out / 'natural/difference.png').exists()
    assert (out / 'readings.md').read_text().splitlines()[2] == '| run | seeds | natural |'
    lines = (out / 'runs.csv').read_text().splitlines()
    assert lines[0] == 'reading,row,seed,mIoU,mIoU_head,mIoU_medium,mIoU_tail,mAcc'
    assert lines[1:] == [f'natural,{row},0,41.67,75.0,50.0,0.0,58.33' for row in 'ab']


def test_rows_that_are_judged_on_other_images_have_a_table_of_their_own(tmp_path):
    """As those of studies/camvid_drives.py, which hold out another drive each."""
    runs = [make(tmp_path, row) for row in 'abc']
    assert work(*runs)[0] == []
    file = runs[1].judgement / 'per_class/natural.json'
    rows = json.loads(file.read_text())
    rows[0]['pixels'] += 1
    write_json(file, rows)
    text = make_tables(Study(runs, ['a', 'b', 'c'], JUDGE), tmp_path / 'out')
    assert [line for line in text.splitlines() if line.startswith('## ')] == [
        '## natural-a', '## natural-b', '## All readings'
    ]  # fmt: skip
    assert (tmp_path / 'out/natural-b/comparison.md').is_file()
    assert [line[:11] for line in (tmp_path / 'out/runs.csv').read_text().splitlines()[1:]] == [
        'natural,a,0', 'natural,b,0', 'natural,c,0'
    ]  # fmt: skip
