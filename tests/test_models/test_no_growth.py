"""Steps leave nothing behind: neither tensors nor objects that hold some."""

import gc
import weakref

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS, MODELS
from tiny import batch, demo_run, segmentor, total

EMA = dict(type='DistilledEncoderDecoder', teacher=dict(type='EMA', momentum=0.9), alpha=1.0)


def live_tensors():
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize('model', [{}, EMA], ids=['self keys', 'EMA'])
def test_no_tensor_stays(model):
    torch.manual_seed(0)
    model = MODELS.build(segmentor(**model)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    counts = []
    for step in range(12):
        losses = model.loss(*batch(step))
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        del losses
        if step in (2, 3, 11):  # counting takes longer than a step, and makes some at first
            counts.append(live_tensors())
    assert counts[1] == counts[2]


@HOOKS.register_module(force=True)
class WatchBatches(Hook):
    def before_run(self, runner):
        self.seen, self.alive = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append(weakref.ref(data_batch['inputs'][0]))
        gc.collect()
        self.alive.append(sum(image() is not None for image in self.seen))


def test_a_run_keeps_no_batch_but_its_last(tmp_path):
    cfg = demo_run(tmp_path / 'run', 5)
    cfg.custom_hooks = [dict(type='ClassPriorHook'), dict(type='WatchBatches')]
    runner = Runner.from_cfg(cfg)
    runner.train()
    (watch,) = [hook for hook in runner.hooks if isinstance(hook, WatchBatches)]
    assert watch.alive == [1] * 5
