import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmseg_ltmi.utils import add_cfg_options, operating_point_options

ROOT = Path(__file__).parents[2]
# torchrun lies beside the interpreter.
ENV = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
CONFIG = ROOT / 'configs/demo/ltmi_fcn-r18_400_shapes-128x128.py'


def run(command, cwd):
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=500, env=ENV
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def options():
    out = ['train_cfg.max_iters=4', 'default_hooks.logger.interval=1', 'log_level=INFO']
    for split, number in (('train', 300), ('test', 6)):
        out += [
            f'{split}_dataloader.dataset.num_images={number}',
            f'{split}_dataloader.dataset.size=(64,64)',
            f'{split}_dataloader.batch_size=2',
        ]
    return out + ['default_hooks.checkpoint.interval=2']


def test_user_options_stay():
    assert add_cfg_options(['c.py'], ['a=1']) == ['c.py', '--cfg-options', 'a=1']
    merged = add_cfg_options(['c.py', '--cfg-options', 'a=2', '--amp'], ['a=1'])
    assert merged == ['c.py', '--cfg-options', 'a=1', 'a=2', '--amp']


def test_options_find_the_last_head_and_the_metric():
    cfg = Config(
        dict(
            model=dict(
                type='CascadeEncoderDecoder',
                decode_head=[dict(type='FCNHead'), dict(type='LTMIOCRHead')],
            ),
            tta_model=dict(type='SegTTAModel'),
            test_evaluator=[dict(type='LogitAdjustmentSweep'), dict(type='IoUMetric')],
        )
    )
    readers = [
        'model.type=LTMICascadeEncoderDecoder',  # a checkpoint may hold an operating point
        'tta_model.type=LTMISegTTAModel',
    ]
    assert operating_point_options(cfg, 0.5, '/a/rows.csv') == [
        *readers,
        'model.decode_head.1.tau_test=0.5',
        'test_evaluator.1.type=LongTailIoUMetric',
        'test_evaluator.1.per_class_file=/a/rows.csv',
    ]
    assert operating_point_options(cfg, operating_point='/a/point.json') == [
        *readers,
        'model.operating_point=/a/point.json',
    ]
    cfg.model.decode_head = dict(type='FCNHead')
    cfg.test_evaluator = dict(type='LogitAdjustmentSweep')
    with pytest.raises(ValueError, match='LTMIFCNHead'):
        operating_point_options(cfg, 0.5)
    with pytest.raises(ValueError, match='LogitAdjustmentSweep'):
        operating_point_options(cfg, per_class='rows.csv')


@pytest.mark.smoke
def test_train_resume_and_test(tmp_path, options):
    # This project's tools need no custom_imports.
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{CONFIG}'\ncustom_imports = dict(_delete_=True, imports=[])\n")
    train = [sys.executable, ROOT / 'tools/train.py', config, '--work-dir', tmp_path / 'run']
    log = run([*train, '--cfg-options', *options], tmp_path)
    assert 'decode.loss_contrast' in log and 'decode.contrast_temperature' in log
    assert (tmp_path / 'run/class_prior.json').is_file()

    state = torch.load(tmp_path / 'run/iter_4.pth', weights_only=True)['state_dict']
    held = (state['decode_head.contrast.queue.labels'] >= 0).float().mean()
    more = [o.replace('max_iters=4', 'max_iters=6') for o in options]
    log = run([*train, '--resume', '--cfg-options', *more], tmp_path)
    assert 'resumed epoch: 0, iter: 4' in log and 'Iter(train) [6/6]' in log
    # The hook fills the prior in before the checkpoint is read, or it would empty the queue again.
    fill = re.search(r'Iter\(train\) \[5/6\].*queue_fill: ([\d.]+)', log)
    assert held > 0 and float(fill[1]) >= held - 1e-4

    test = [sys.executable, ROOT / 'tools/test.py', CONFIG, tmp_path / 'run/iter_6.pth']
    log = run(
        [*test, '--per-class', tmp_path / 'rows.csv', '--tau-test', '1', '--cfg-options', *options],
        tmp_path,
    )
    assert 'mIoU_head' in log and len((tmp_path / 'rows.csv').read_text().splitlines()) == 14


def test_two_processes(tmp_path, options):
    log = run(
        [
            'bash',
            ROOT / 'tools/dist_train.sh',
            CONFIG,
            2,
            '--work-dir',
            tmp_path / 'run',
            '--cfg-options',
            *options,
        ],
        tmp_path,
    )
    assert 'Iter(train) [4/4]' in log
    run(
        [
            'bash',
            ROOT / 'tools/dist_test.sh',
            CONFIG,
            tmp_path / 'run/iter_4.pth',
            2,
            '--cfg-options',
            *options,
        ],
        tmp_path,
    )


def test_own_tools_of_mmsegmentation(tmp_path, options):
    import mmseg

    tool = Path(mmseg.__file__).parent / '.mim/tools/train.py'
    if not tool.is_file():
        pytest.skip('mmsegmentation was installed without its tools')
    config = CONFIG
    if MODULE2PACKAGE['mmseg'] != 'mmsegmentation':
        # The fork's tools look for the distribution of mmseg:: bases under another name.
        config = tmp_path / 'flat.py'
        Config.fromfile(CONFIG).dump(config)
    command = [sys.executable, tool, config, '--work-dir', tmp_path / 'run', '--cfg-options']
    assert 'Iter(train) [4/4]' in run([*command, *options], tmp_path)
