import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_ltmi.evaluation.run_comparison import (
    by_name,
    difference_rows,
    differences,
    interval,
    markdown,
    mean_rows,
    means,
    read_run,
)

TOOL = Path(__file__).parents[2] / 'tools/analysis/compare_runs.py'
GROUPS = ('head', 'medium', 'tail')


def write(path, ious, classes=('a', 'b', 'c'), groups=GROUPS):
    """Rows with the IoU of each class as its accuracy too; None is a class without label."""
    rows = [
        {
            'class': name, 'group': group, 'prior': share, 'pixels': 0 if iou is None else 10,
            'IoU': iou, 'Acc': iou, 'Precision': iou,
        }
        for name, group, share, iou in zip(classes, groups, (0.8, 0.15, 0.05), ious, strict=True)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.json':
        path.write_text(json.dumps(rows))
    else:
        with path.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def test_interval_by_hand():
    # Deviation 1, three values: 4.303 / sqrt(3).
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.number) == (2, 3) and found.half == pytest.approx(2.4843, abs=1e-3)
    assert str(interval([1.234])) == '1.23'


def test_a_reading_of_a_work_dir(tmp_path):
    write(tmp_path / 'ce-seed0/operating_point/per_class/natural.json', (10, 20, 30))
    write(tmp_path / 'ce-seed0/2026/per_class.json', (1, 2, 3))
    run = read_run(tmp_path / 'ce-seed0', reading='natural')
    assert (run.name, run.seed) == ('ce', '0') and run.rows[0]['IoU'] == 10
    assert read_run(tmp_path / 'ce-seed0').rows[0]['IoU'] == 1
    with pytest.raises(FileNotFoundError, match='no per_class/x.json: read it so with'):
        read_run(tmp_path / 'ce-seed0', reading='x')


def test_seeds_form_a_row_and_differences_are_paired(tmp_path):
    for seed, (base, ours) in enumerate(((10, 16), (20, 24), (30, 35))):
        write(tmp_path / f'ce-seed{seed}/2026/per_class.json', (90, 50, base))
        write(tmp_path / f'ltmi_s{seed}/2026/per_class.csv', (90, 50, ours))
    groups = by_name([read_run(path) for path in sorted(tmp_path.iterdir())])
    assert list(groups) == ['ce', 'ltmi'] and [r.seed for r in groups['ltmi']] == ['0', '1', '2']
    assert means(groups['ce'])['mIoU_tail'].mean == 20
    change = differences(groups['ltmi'], groups['ce'])['mIoU_tail']
    assert change.mean == 5 and change.half == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert [row['IoU'] for row in mean_rows(groups['ce'])] == [90, 50, 20]
    rows = difference_rows(groups['ltmi'], groups['ce'])
    assert [row['IoU'] for row in rows] == [0, 0, 5]
    assert [row['IoU_half'] for row in rows] == pytest.approx([0, 0, 4.303 / 3**0.5], abs=1e-3)
    assert mean_rows(groups['ce'])[2]['IoU_half'] == pytest.approx(24.843, abs=1e-2)
    unpaired = difference_rows(groups['ltmi'][:1], groups['ce'][1:])
    assert unpaired[2]['IoU'] == 16 - 25 and unpaired[2]['IoU_half'] != unpaired[2]['IoU_half']
    assert '| ltmi | 3 | +1.67 ± 0.82 | +0.00 ± 0.00 | +0.00 ± 0.00 | +5.00' in markdown(groups)


def test_the_newest_file_counts_and_an_absent_class_is_no_zero(tmp_path):
    old = write(tmp_path / 'run/1/per_class.json', (1, 1, 1))
    new = write(tmp_path / 'run/2/per_class.json', (90, 50, None))
    os.utime(old, (1, 1))
    run = read_run(tmp_path / 'run')
    assert run.file == new and run.scores['mIoU'] == 70
    assert run.scores['mIoU_tail'] != run.scores['mIoU_tail']  # nan
    assert 'left out: c' in markdown({'run': [run]})


def test_bad_input(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no per_class.json.*--per-class FILE'):
        read_run(tmp_path / 'empty')
    with pytest.raises(FileNotFoundError, match='there is no run'):
        read_run(tmp_path / 'none')
    for text in ('{', '{}', '[]', '[{"class": "a"}]', '[1]'):
        (tmp_path / 'a.json').write_text(text)
        with pytest.raises(ValueError, match='no file of rows per class'):
            read_run(tmp_path / 'a.json')
    one = read_run(write(tmp_path / 'x.json', (1, 2, 3)))
    other = read_run(write(tmp_path / 'y.json', (1, 2, 3), ('a', 'c', 'b')))
    with pytest.raises(ValueError, match='in another order'):
        by_name([one, other])
    with pytest.raises(ValueError, match='two runs are called'):
        by_name([one, one])
    rows = [{**row, 'pixels': 20.0} if row['class'] == 'b' else row for row in one.rows]
    with pytest.raises(ValueError, match='other images than .*x.json: b has 20 and 10 label pix'):
        by_name([one, one._replace(name='z', rows=rows)])
    with pytest.raises(ValueError, match="x.json is one reading already: .* leave 'natural' out"):
        read_run(tmp_path / 'x.json', reading='natural')


def test_all_runs_take_the_groups_of_the_first(tmp_path):
    write(tmp_path / 'ce/per_class.json', (90, 50, 10))
    write(tmp_path / 'ltmi/per_class.csv', (80, 60, 40), groups=GROUPS[::-1])
    runs = [read_run(tmp_path / name) for name in ('ce', 'ltmi')]
    assert runs[1].scores['mIoU_tail'] == 80  # by its own groups
    table = markdown(by_name(runs))
    assert '| ltmi | none | ' not in table
    assert '| ltmi | 1 | +10.00 | -10.00 | +10.00 | +30.00 |' in table
    assert 'tail are those of ce in every row: ltmi had other groups' in table
    assert 'other groups' not in markdown(by_name([runs[0]]))


def test_tool(tmp_path):
    for name, tail in (('ce', 10), ('ltmi', 16), ('weights', 12)):
        write(tmp_path / name / 'per_class.json', (90, 50, tail))
    command = [sys.executable, TOOL, *(tmp_path / n for n in ('ce', 'ltmi', 'weights'))]
    done = subprocess.run(
        [*map(str, command), '--out', str(tmp_path / 'out')], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '| ltmi | 1 | +2.00 | +0.00 | +0.00 | +6.00 | +2.00 |' in done.stdout
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'comparison.md', 'difference.png', 'iou_by_frequency.png'
    }  # fmt: skip


def test_a_file_in_a_work_dir_has_its_name(tmp_path):
    files = [
        write(tmp_path / f'{name}-seed1/{place}.json', (90, 50, 10))
        for name, place in (('ce', '20261128_031500/per_class'), ('ltmi', 'per_class'))
    ]
    files.append(write(tmp_path / 'own-seed1/operating_point/per_class/natural.json', (90, 50, 20)))
    assert list(by_name([read_run(file) for file in files])) == ['ce', 'ltmi', 'own']


def test_rows_of_a_sweep_are_not_those_of_the_run(tmp_path):
    write(tmp_path / 'ce/2026/per_class.json', (90, 50, 10))
    newest = write(tmp_path / 'ce/2026/per_class_tau1.json', (1, 1, 1))
    os.utime(newest, (2e9, 2e9))
    assert read_run(tmp_path / 'ce').rows[0]['IoU'] == 90


def test_a_reading_is_named_as_choose_names_it(tmp_path):
    write(tmp_path / 'ce/operating_point/per_class/tau_by_mIoU.json', (90, 50, 10))
    assert read_run(tmp_path / 'ce', reading='tau by mIoU').rows[2]['IoU'] == 10


def test_a_csv_that_a_spreadsheet_has_saved(tmp_path):
    file = write(tmp_path / 'a.csv', (90, 50, 10))
    file.write_text(file.read_text(), encoding='utf-8-sig')
    assert read_run(file).rows[0]['class'] == 'a'
