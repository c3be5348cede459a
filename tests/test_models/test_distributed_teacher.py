"""A student's ranks agree, and DistributedDataParallel needs no ``find_unused_parameters``."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from ranks import run_ranks
from tiny import batch, segmentor, total
from torch.nn.parallel import DistributedDataParallel

import mmseg_ltmi  # noqa: F401

WORLD, STEPS = 2, 3


class Step(torch.nn.Module):
    """The training step as a forward pass, which DistributedDataParallel wraps."""

    def __init__(self, teacher):
        super().__init__()
        torch.manual_seed(0)
        config = segmentor(type='DistilledEncoderDecoder', teacher=teacher, alpha=1.0)
        self.model = MODELS.build(config).train()

    def forward(self, inputs, samples):
        return total(self.model.loss(inputs, samples))


def data(rank, step):
    """Every rank has its own images; from the second step the last one has no valid pixel."""
    inputs, samples = batch(10 * rank + step)
    if rank == WORLD - 1 and step:
        for sample in samples:
            sample.gt_sem_seg.data.fill_(255)
    return inputs, samples


def work(rank, world, folder, teacher):
    init_default_scope('mmseg')
    step = Step(teacher)
    wrapped = DistributedDataParallel(step, broadcast_buffers=False)
    optimizer = torch.optim.SGD([p for p in step.parameters() if p.requires_grad], 0.1)
    torch.manual_seed(rank)  # each rank draws its own pixels
    for number in range(STEPS):
        optimizer.zero_grad()
        wrapped(*data(rank, number)).backward()
        optimizer.step()
    torch.save(step.model.state_dict(), f'{folder}/{rank}.pth')


@pytest.mark.parametrize('kind', ['frozen', 'EMA'])
def test_ranks_agree(tmp_path, kind):
    init_default_scope('mmseg')
    teacher = dict(type='EMA', momentum=0.9)
    if kind == 'frozen':
        config = segmentor(34, 24, ltmi=False)
        torch.save(MODELS.build(config).state_dict(), tmp_path / 'teacher.pth')
        teacher = dict(config=dict(model=segmentor(34, 24, ltmi=False)))
        teacher['checkpoint'] = str(tmp_path / 'teacher.pth')
    run_ranks(work, WORLD, tmp_path, teacher)
    states = [torch.load(tmp_path / f'{rank}.pth') for rank in range(WORLD)]
    # Without SyncBN a rank has its own BatchNorm statistics.
    keys = [key for key in states[0] if 'running_' not in key]
    for key in keys:
        torch.testing.assert_close(
            states[1][key], states[0][key], rtol=0, atol=0, equal_nan=True, msg=key
        )
    assert any(key.startswith('teacher.') for key in keys) == (kind == 'EMA')
    queue = states[0]['decode_head.contrast.queue.labels']
    assert set(queue.tolist()) >= {0, 1, 2, 3}
