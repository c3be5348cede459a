"""Steps leave nothing behind: neither tensors nor objects that hold some."""

import gc

import pytest
import torch
from mmseg.registry import MODELS
from tiny import batch, segmentor, total

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
        counts.append(live_tensors())
    assert counts[-1] == counts[3]
