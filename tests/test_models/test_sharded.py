"""Under torch's sharded wrappers a model trains, and what its ranks share stays equal."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from ranks import run_ranks
from tiny import batch, segmentor, total
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

import mmseg_ltmi  # noqa: F401

pytest.importorskip('torch', '2.6', reason='torch has no public fully_shard')
from torch.distributed.checkpoint.state_dict import (  # noqa: E402
    StateDictOptions,
    get_model_state_dict,
)
from torch.distributed.fsdp import fully_shard  # noqa: E402

WORLD, STEPS = 2, 3
FULL = StateDictOptions(full_state_dict=True)


class Step(nn.Module):
    """The training step as a forward pass, which the wrappers wrap."""

    def __init__(self):
        super().__init__()
        init_default_scope('mmseg')
        torch.manual_seed(0)
        self.model = MODELS.build(segmentor()).train()

    def forward(self, inputs, samples):
        return total(self.model.loss(inputs, samples))


def work(rank, world, folder, kind):
    step = Step()
    if kind == 'FSDP':
        step = FullyShardedDataParallel(step, device_id=torch.device('cpu'), use_orig_params=True)
    else:
        fully_shard(step, mesh=torch.distributed.init_device_mesh('cpu', (world,)))
    optimizer = torch.optim.SGD(step.parameters(), 0.1)
    torch.manual_seed(rank)
    for number in range(STEPS):
        optimizer.zero_grad()
        step(*batch(10 * rank + number)).backward()
        optimizer.step()
    # Batch statistics are a rank's own. Of FSDP's weights, gathering on CPUs crashes in torch.
    buffers = {name: v for name, v in step.named_buffers() if 'running_' not in name}
    state = get_model_state_dict(step, options=FULL) if kind == 'fully_shard' else {}
    torch.save((buffers, state), f'{folder}/{rank}.pth')


@pytest.mark.parametrize('kind', ['FSDP', 'fully_shard'])
def test_ranks_agree(tmp_path, kind):
    run_ranks(work, WORLD, tmp_path, kind)
    (first, state), (second, _) = (torch.load(tmp_path / f'{rank}.pth') for rank in range(WORLD))
    assert sum('contrast.queue.' in name for name in first) == 6
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, equal_nan=True)
    held = [name for name in first if name.endswith('queue.labels')]
    assert (first[held[0]] >= 0).any()
    if state:
        untrained = Step()
        before = untrained.model.decode_head.contrast.loss.log_temperature.clone()
        untrained.load_state_dict(state)
        after = untrained.model.decode_head.contrast.loss.log_temperature
        assert after.isfinite().all() and after != before
