"""A study of a few tiny images, from its first checkpoint over a stop to its tables."""

import os
import signal
import subprocess
import sys
import time

import pytest
from mmengine.config import Config
from tiny import ROOT

STEPS = 40  # twice the first checkpoint's, after which the study is stopped
BASE = f"""
_base_ = '{ROOT}/configs/demo/ce_fcn-r18_400_shapes-128x128.py'
_data = dict(data_root='FOLDER/data', size=(64, 64), num_images=4)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=_data)
test_dataloader = dict(num_workers=0, dataset=_data)
train_cfg = dict(max_iters={STEPS})
default_hooks = dict(checkpoint=dict(interval={STEPS // 2}), logger=dict(interval=1))
custom_hooks = [dict(type='ClassPriorHook')]
"""
STUDY = """
base = 'base.py'
rows = dict(weights=dict(change=dict(model=dict(decode_head=dict(
    type='LTMIFCNHead',
    loss_decode=dict(_delete_=True, type='LogitAdjustedLoss', class_weight='inverse_sqrt'),
)))))
seeds = (3,)
judge = ['--report', 'test', '--folds', '2']
"""


@pytest.mark.long
def test_a_study_is_stopped_resumed_judged_and_tabulated(tmp_path):
    (tmp_path / 'base.py').write_text(BASE.replace('FOLDER', str(tmp_path)))
    (tmp_path / 'study.py').write_text(STUDY)
    tool, file, out = ROOT / 'studies/run.py', tmp_path / 'study.py', tmp_path / 'out'
    command = [sys.executable, '-W', 'ignore', tool, file, '--out', out]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    folder = out / 'runs/weights-seed3'

    study = subprocess.Popen(command, env=environment)
    saved = folder / 'last_checkpoint'  # written after the checkpoint itself
    while not (saved.exists() and saved.read_text()):
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGTERM)
    assert study.wait(60) == 1
    assert not (folder / f'iter_{STEPS}.pth').exists()

    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    logs = ''.join(log.read_text()[-3000:] for log in folder.glob('*.log'))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert f'resumed epoch: 0, iter: {STEPS // 2}' in (folder / 'train.log').read_text()
    assert Config.fromfile(out / 'configs/weights-seed3.py').randomness.seed == 3
    assert '## natural' in done.stdout and '| weights | 1 |' in done.stdout
    assert (folder / 'operating_point/operating_point.json').exists()
    lines = (out / 'comparison/runs.csv').read_text().splitlines()
    readings = {line.split(',')[0] for line in lines[1:] if ',weights,3,' in line}
    assert {'natural', 'IoU_rule', 'tau_by_mIoU'} <= readings
