"""What a study's FILE may say, and the runs that it describes."""

import pytest
from run import chosen
from study_runs import difference, read_study
from tiny import ROOT

STUDY = f"""
base = '{ROOT}/configs/demo/ce_fcn-r18_400_shapes-128x128.py'
common = dict(train_cfg=dict(max_iters=7))
seeds = (0, 1)
judge = ['--folds', 2]
rows = dict(
    ce=dict(),
    slow=dict(change=dict(optim_wrapper=dict(optimizer=dict(lr=0.5))), seeds=(0,)),
)
"""


def read(folder, old='', new=''):
    assert old in STUDY
    (folder / 'a.py').write_text(STUDY.replace(old, new))
    return read_study(folder / 'a.py', folder / 'out')


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('seeds = (0, 1)', 'seed = 0', r"a\.py has 'seed', but may have"),
        ('seeds=(0,)', 'sed=(0,)', "row 'slow' has 'sed', but may have"),
        ('seeds = (0, 1)', 'seeds = 0', r'seeds of .*a\.py must be a list, but is 0'),
        ('seeds=(0,)', "seeds=('x',)", "seeds of row 'slow' must be whole numbers"),
        ('ce=dict()', 'ce=dict(base=3)', "base of row 'ce' must be a str"),
        ('base = ', '_base = ', "row 'ce' has no base"),
        ('rows = ', '_rows = ', 'must have rows='),
        ('ce=dict()', 'ce=None', "row 'ce' must be a dict"),
        ('slow=dict(', "**{'a/b': dict()}, slow=dict(", "row 'a/b' must .* fit for a folder"),
        ('ce=dict()', "ce=dict(needs='x')", "needs='x' must name a row"),
        ('ce=dict()', "ce=dict(needs='ce')", "needs='ce' must name a row"),
        ("['--folds', 2]", "'--folds 2'", 'judge of .* must be a list'),
        ('ce=dict()', 'ce=dict(change=dict(model=dict(type=dict(a=1))))', "row 'ce' does not fit"),
    ],
)
def test_what_a_study_may_not_say(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, old, new)


def test_every_row_with_its_changes_seed_by_seed(tmp_path):
    study = read(tmp_path)
    assert study.judge == (['--folds', '2'], None) and study.rows == ['ce', 'slow']
    assert [run.name for run in study.runs] == ['ce-seed0', 'slow-seed0', 'ce-seed1']
    configs = [run.config for run in study.runs]
    assert [cfg.randomness.seed for cfg in configs] == [0, 0, 1]
    assert [cfg.optim_wrapper.optimizer.lr for cfg in configs] == [2e-3, 0.5, 2e-3]
    assert all(cfg.train_cfg.max_iters == 7 for cfg in configs)


def test_what_others_need_comes_first(tmp_path):
    runs = read(tmp_path, 'ce=dict()', "ce=dict(needs='slow')").runs
    assert [run.name for run in runs] == ['slow-seed0', 'ce-seed0', 'ce-seed1']
    assert [run.needs for run in runs] == [(), (runs[0],), (runs[0],)]


def test_rows_and_seeds_are_chosen(tmp_path):
    study = read(tmp_path)
    assert chosen(study, None, None) == study.runs
    assert [run.name for run in chosen(study, ['ce'], [1])] == ['ce-seed1']
    for rows, seeds, missing in ((['x'], None, 'x'), (None, [0, 7], '7'), (['slow'], [1], '1')):
        with pytest.raises(ValueError, match=f'no such run in the study: .*{missing}'):
            chosen(study, rows, seeds)


@pytest.mark.parametrize(
    'old, new, message',
    [
        ({'a': {'b': 1}}, {'a': {'b': 2}}, 'a.b was 1, now 2'),
        ({'a': {'b': 1, 'c': 0}}, {'a': {'c': 0}}, 'a.b was 1, now nothing'),
        ({'a': {}}, {'a': {'b': 1}}, 'a was {}, now nothing'),
        ({'a': [1, {'b': 2}]}, {'a': [1, {'b': 3}]}, 'a.1.b was 2, now 3'),
        ({'a': (1, 2)}, {'a': (1, 2)}, ''),
    ],
)
def test_the_first_difference_of_two_configs(old, new, message):
    assert difference(old, new) == message
