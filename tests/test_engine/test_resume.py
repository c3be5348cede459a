"""A run that is stopped and resumed ends where the uninterrupted one does, bit for bit."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import mmseg_ltmi  # noqa: F401

CONFIG = Path(__file__).parents[2] / 'configs/demo/ltmi_fcn-r18_400_shapes-128x128.py'
STEPS, STOP = 5, 3


def config(folder, teacher=None):
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(folder)
    cfg.model.data_preprocessor.size = (32, 32)
    cfg.model.decode_head.contrast.queue = dict(size=208)
    cfg.model.decode_head.contrast.sampler = dict(num_samples=64)
    cfg.train_dataloader.update(batch_size=2, num_workers=1)
    dataset = dict(data_root=str(folder.parent / 'data'), num_images=16, size=(32, 32))
    cfg.train_dataloader.dataset.update(dataset)
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.train_cfg.max_iters = STEPS
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=STOP)
    cfg.custom_hooks += [dict(type='StepSeedHook')]
    cfg.log_level = 'ERROR'
    cfg.experiment_name = folder.name
    if teacher is not None:
        cfg.model.update(type='DistilledEncoderDecoder', teacher=teacher, alpha=1.0)
    return cfg


@pytest.mark.parametrize('kind', ['self keys', 'EMA', 'frozen'])
def test_resumed_run_is_the_same_run(tmp_path, kind):
    teacher = dict(type='EMA', momentum=0.9) if kind == 'EMA' else None
    if kind == 'frozen':
        taught = config(tmp_path / 'teacher')
        taught.train_cfg.max_iters = STOP
        Runner.from_cfg(copy.deepcopy(taught)).train()
        checkpoint = str(tmp_path / f'teacher/iter_{STOP}.pth')
        teacher = dict(config=taught.to_dict(), checkpoint=checkpoint)
    whole = Runner.from_cfg(config(tmp_path / 'whole', teacher))
    whole.train()
    torch.manual_seed(99)
    again = config(tmp_path / 'again', teacher)
    again.update(load_from=str(tmp_path / f'whole/iter_{STOP}.pth'), resume=True)
    resumed = Runner.from_cfg(again)
    resumed.train()
    assert resumed.iter == whole.iter == STEPS
    # equal_nan: no IoU rule was chosen.
    torch.testing.assert_close(
        resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0, equal_nan=True
    )
    stored = torch.load(tmp_path / f'whole/iter_{STOP}.pth', weights_only=True)['state_dict']
    assert any(key.startswith('teacher.') for key in stored) == (kind == 'EMA')
    if kind == 'frozen':
        assert resumed.model.teacher.network is not whole.model.teacher.network
