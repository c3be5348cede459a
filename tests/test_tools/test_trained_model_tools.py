"""choose_operating_point.py, test.py with its result, and browse_tail.py, on one small model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.priors import ClassPrior

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/ltmi_fcn-r18_400_shapes-128x128.py'
PIPELINE = [dict(type='mmseg.LoadAnnotations')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A config with small splits and a checkpoint whose scores differ from pixel to pixel."""
    folder = tmp_path_factory.mktemp('model')
    data = dict(data_root=str(folder / 'data'), size=(64, 64))
    for split, number in (('train', 12), ('val', 5), ('test', 6)):
        LongTailShapesDataset(split=split, num_images=number, pipeline=PIPELINE, **data)
    train = LongTailShapesDataset(split='train', num_images=12, pipeline=PIPELINE, **data)
    ClassPrior.from_dataset(train).save(folder / 'prior.json')
    config = f"""
_base_ = '{CONFIG}'
_prior = '{folder}/prior.json'
_data = dict(data_root='{folder}/data', size=(64, 64))
train_dataloader = dict(dataset=dict(num_images=12, **_data))
test_dataloader = dict(dataset=dict(num_images=6, **_data))
val_dataloader = _base_.test_dataloader.copy()
val_dataloader.update(dataset=dict(**_base_.test_dataloader.dataset))
val_dataloader['dataset'].update(split='val', num_images=5, **_data)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='LongTailIoUMetric')
model = dict(
    decode_head=dict(loss_decode=dict(class_prior=_prior), contrast=dict(class_prior=_prior))
)
"""
    (folder / 'small.py').write_text(config)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(folder / 'small.py').model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=3)
    torch.save({'state_dict': model.state_dict()}, folder / 'small.pth')
    return folder


def run(tool, *arguments, fails=False):
    command = [sys.executable, '-W', 'ignore', ROOT / 'tools' / tool, *arguments]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)
    assert (done.returncode != 0) == fails, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_choose_report_embed_and_use(folder):
    files = folder / 'small.py', folder / 'small.pth'
    chosen = folder / 'point'
    log = run(
        'choose_operating_point.py', *files, '--work-dir', folder / 'work', '--out', chosen,
        '--embed', folder / 'embedded.pth', '--choose', 'IoU rule',
    )  # fmt: skip
    assert 'test split, chosen on val' in log and 'WARNING: chosen' not in log
    content = json.loads((chosen / 'operating_point.json').read_text())
    values = content['report']['values']
    assert set(values) >= {'natural', 'tau by mIoU', 'IoU rule'} and content['rule'] == 'iou'
    assert (chosen / 'curves.png').stat().st_size > 5000

    # The report says what tools/test.py finds, from the file and from the checkpoint.
    for checkpoint, option in (
        ('small.pth', ['--operating-point', chosen / 'operating_point.json']),
        ('embedded.pth', []),
    ):
        log = run('test.py', files[0], folder / checkpoint, '--work-dir', folder / 'test', *option)
        found = re.findall(r'Iter\(test\) \[1/1\].*? mIoU: ([\d.]+)', log)
        assert float(found[-1]) == pytest.approx(values['IoU rule']['mIoU'], abs=0.011)

    log = run(
        'choose_operating_point.py', *files, '--work-dir', folder / 'work', '--out', chosen,
        '--report', 'test', '--folds', '3', '--choose', 'tau by mAcc',
    )  # fmt: skip
    assert 'cross-fitted in 3 folds' in log
    assert json.loads((chosen / 'operating_point.json').read_text())['rule'] == 'tau'
    log = run(
        'choose_operating_point.py', *files, '--work-dir', folder / 'work', '--out', chosen,
        '--select', 'train', '--report', 'train',
    )  # fmt: skip
    assert 'WARNING: chosen and reported on the same split (train)' in log
    assert f'in {chosen}/operating_point.json' in log and 'tau_test=' in log


def test_browse_tail(folder):
    page = folder / 'tail.png'
    files = folder / 'small.py', folder / 'small.pth', folder / 'small.pth'
    log = run('analysis/browse_tail.py', *files[:2], '--num-images', '2', '--out', page,
              '--classes', 'disc')  # fmt: skip
    assert '2 images' in log and page.stat().st_size > 20000
    log = run('analysis/browse_tail.py', *files[:2], '--classes', 'cat', fails=True)
    assert "unknown classes ['cat']" in log


def test_explain_classes(folder):
    files = folder / 'small.py', folder / 'small.pth'
    work = folder / 'work'
    log = run(
        'analysis/explain_classes.py', *files, '--json', folder / 'a.json', '--work-dir', work
    )
    assert 'test split, %, near is within 3 pixels' in log
    rows = {row['class']: row['IoU'] for row in json.loads((folder / 'a.json').read_text())}
    per_class = folder / 'rows.json'
    run('test.py', *files, '--work-dir', folder / 'test', '--per-class', per_class)
    for row in json.loads(per_class.read_text()):
        if row['IoU'] is not None:
            assert rows[row['class']] == pytest.approx(row['IoU'], abs=1e-6)
    log = run(
        'analysis/explain_classes.py', *files, '--split', 'val', '--class-prior', 'x', fails=True
    )
    assert "'x'" in log


def test_a_checkpoint_with_other_classes_is_refused(folder):
    state = torch.load(folder / 'small.pth')['state_dict']
    state['decode_head.conv_seg.weight'] = torch.zeros(19, 64, 1, 1)
    torch.save({'state_dict': state}, folder / 'other.pth')
    log = run('choose_operating_point.py', folder / 'small.py', folder / 'other.pth', fails=True)
    assert 'of another model' in log and '(19, 64, 1, 1)' in log
