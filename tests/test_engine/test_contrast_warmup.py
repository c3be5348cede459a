"""ContrastWarmupHook."""

import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from tiny import demo_run

from mmseg_ltmi.engine import ContrastWarmupHook


@HOOKS.register_module()
class WatchWeight(Hook):
    """Note the weight of each step, after other hooks."""

    priority = 'LOWEST'
    seen: list = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(runner.model.decode_head.contrast.loss.loss_weight)


def run(folder, steps, **options):
    cfg = demo_run(folder, steps)
    warmup = dict(type='ContrastWarmupHook', begin=1, end=5)
    cfg.custom_hooks += [warmup, dict(type='WatchWeight')]
    for key, value in options.items():
        cfg[key] = value
    runner = Runner.from_cfg(cfg)
    weight = runner.model.decode_head.contrast.loss.loss_weight
    WatchWeight.seen = []
    runner.train()
    assert runner.model.decode_head.contrast.loss.loss_weight == weight
    return [seen / weight for seen in WatchWeight.seen]


def test_the_weight_rises_and_goes_on_after_a_resume(tmp_path):
    whole = [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert run(tmp_path / 'whole', 7) == pytest.approx(whole)
    run(tmp_path / 'first', 3)
    found = run(tmp_path / 'second', 7, load_from=str(tmp_path / 'first/iter_3.pth'), resume=True)
    assert found == pytest.approx(whole[3:])


def test_what_makes_no_warmup(tmp_path):
    for begin, end in ((5, 5), (-1, 3)):
        with pytest.raises(ValueError, match=f'begin={begin} to end={end}'):
            ContrastWarmupHook(begin, end)
    cfg = demo_run(tmp_path, 1)
    cfg.model.decode_head.contrast = None
    cfg.custom_hooks = [dict(type='ContrastWarmupHook')]
    with pytest.raises(ValueError, match='no GMLLoss'):
        Runner.from_cfg(cfg).train()
