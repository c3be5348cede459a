"""A run under ``torch.compile``, as ``compile=...`` in a config asks for, is the same run."""

import pytest
import torch
from mmengine.runner import Runner
from tiny import demo_run


@pytest.mark.long
def test_compiled_run(tmp_path):
    states = []
    for name in ('eager', 'compiled'):
        cfg = demo_run(tmp_path / name, steps=2)
        # Few layers, since each takes long to trace.
        cfg.model.backbone.update(
            num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)
        )
        cfg.model.decode_head.update(in_channels=[32, 64], in_index=[0, 1])
        cfg.custom_hooks += [dict(type='StepSeedHook')]
        # Adam would blow rounding up to whole steps.
        cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.01, weight_decay=0.01)
        # Traces all that inductor would compile, the optimizer's step included, in less time.
        cfg.compile = name == 'compiled' and dict(backend='aot_eager')
        runner = Runner.from_cfg(cfg)
        runner.train()
        states.append(runner.model.state_dict())
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 0
    for key, value in states[0].items():
        close = dict(rtol=1e-3, atol=1e-4, equal_nan=True)
        torch.testing.assert_close(states[1][key], value, **close)
