"""What a study's file says, and the runs that make it."""

import pytest
from tiny import ROOT

from mmseg_ltmi.study import chosen, plan, read_study

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


def study(folder, *changes):
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / 'a.py').write_text(text)
    return read_study(folder / 'a.py')


def runs_of(folder, *changes):
    return plan(study(folder, *changes), folder, folder / 'out')


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('seeds = (0, 1)', 'seed = 0', r'a\.py has .*but may have'),
        ('seeds=(0,)', 'sed=(0,)', r"row 'slow' has \['sed'\], but may have"),
        ('seeds = (0, 1)', 'seeds = 0', r'seeds of .*a\.py must be a list, but is 0'),
        ('seeds=(0,)', 'seeds=0', "seeds of row 'slow' must be a list"),
        ('seeds=(0,)', "seeds=('x',)", "seeds of row 'slow' must be whole numbers"),
        ('ce=dict()', 'ce=dict(base=3)', "base of row 'ce' must be a text"),
        ('ce=dict()', 'ce=dict(change=None)', "change of row 'ce' must be a dict"),
        ('common = dict(train_cfg=dict(max_iters=7))', 'common = 3', 'common of .* must be a dict'),
        ('base = ', '_base = ', "row 'ce' has no base"),
        ('rows = ', '_rows = ', 'must have rows='),
        ('ce=dict()', 'ce=None', 'must have rows='),
        ('slow=dict(', "**{'a/b': dict()}, slow=dict(", "row 'a/b' must have a name that a folder"),
        ('base = ', 'base = x, ', 'a\\.py is no config: .*x'),
        ('ce=dict()', "ce=dict(needs='x')", "row 'ce' needs 'x': name a row"),
        ('ce=dict()', "ce=dict(needs='ce')", "row 'ce' needs 'ce': name a row"),
        ('ce=dict()', "ce=dict(needs=['slow'])", "needs of row 'ce' must be a text"),
        ("['--folds', 2]", "'--folds 2'", "judge of .* must be a list, but is '--folds 2'"),
        ("['--folds', 2]", "[['--folds', '2']]", 'judge of .* must be arguments'),
    ],
)
def test_what_makes_no_study(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        study(tmp_path, (old, new))


def test_a_needed_row_has_seeds(tmp_path):
    changes = ('ce=dict()', "ce=dict(needs='slow')"), ('seeds=(0,)', 'seeds=()')
    with pytest.raises(ValueError, match="row 'ce' needs 'slow': name a row that has seeds"):
        study(tmp_path, *changes)


def test_a_change_that_does_not_fit(tmp_path):
    change = ('ce=dict()', 'ce=dict(change=dict(model=dict(type=dict(a=1))))')
    with pytest.raises(ValueError, match=r"row 'ce' does not fit .*shapes-128x128\.py"):
        runs_of(tmp_path, change)


def test_every_row_with_its_changes_seed_by_seed(tmp_path):
    found = study(tmp_path)
    assert found.judge == ['--folds', '2']
    runs = plan(found, tmp_path, tmp_path / 'out')
    assert [run.name for run in runs] == ['ce-seed0', 'slow-seed0', 'ce-seed1']
    assert [run.config.randomness.seed for run in runs] == [0, 0, 1]
    assert [run.config.optim_wrapper.optimizer.lr == 0.5 for run in runs] == [False, True, False]
    assert all(run.config.train_cfg.max_iters == 7 for run in runs)
    assert runs[1].folder == tmp_path / 'out/runs/slow-seed0'


def test_what_others_need_comes_first(tmp_path):
    runs = runs_of(tmp_path, ('ce=dict()', "ce=dict(needs='slow')"))
    assert [run.name for run in runs] == ['slow-seed0', 'ce-seed0', 'ce-seed1']
    assert [run.needs for run in runs] == [(), (runs[0],), (runs[0],)]


def test_rows_and_seeds_are_chosen(tmp_path):
    runs = runs_of(tmp_path)
    assert chosen(runs, None, None) == runs
    assert [run.name for run in chosen(runs, ['ce'], [1])] == ['ce-seed1']
    for rows, seeds, message in (
        (['x'], None, r"no row \['x'\]: the study has \['ce', 'slow'\]"),
        (None, [0, 7], r'no seed \[7\]: the study has \[0, 1\]'),
        (['slow'], [1], r"no run of the rows \['slow'\] has one of the seeds \[1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen(runs, rows, seeds)
