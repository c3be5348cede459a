"""What ranks share is bit-equal on all of them, also when one has nothing to add."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from ranks import run_ranks
from torch.nn.parallel import DistributedDataParallel

import mmseg_ltmi  # noqa: F401

STEPS = 3


def build():
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='LTMIFCNHead', in_channels=8, channels=8, num_classes=4, norm_cfg=dict(type='BN'),
            loss_decode=dict(type='LogitAdjustedLoss', class_prior='online'),
            contrast=dict(
                class_prior=[60, 30, 9, 1], queue=dict(size=64), sampler=dict(num_samples=32)
            ),
        )
    )  # fmt: skip


class Step(torch.nn.Module):
    """The head's training step as a forward pass, which DistributedDataParallel wraps."""

    def __init__(self):
        super().__init__()
        self.head = build()

    def forward(self, feature, labels):
        sample = SegDataSample(metainfo=dict(img_shape=(16, 16)))
        sample.gt_sem_seg = PixelData(data=labels)
        losses = self.head.loss([feature], [sample], None)
        return sum(value for key, value in losses.items() if 'loss' in key)


def batch(rank, step, world):
    """Ranks see different classes, and the last rank no valid pixel at all."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    feature = torch.randn(1, 8, 8, 8, generator=generator)
    labels = torch.randint(0, 2 + rank, (1, 16, 16), generator=generator).clamp(max=3)
    if rank == world - 1:
        labels.fill_(255)
    return feature, labels


def work(rank, world, folder):
    model = Step()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(rank)  # each rank draws its own pixels
    for step in range(STEPS):
        optimizer.zero_grad()
        wrapped(*batch(rank, step, world)).backward()
        optimizer.step()
    torch.save(model.head.state_dict(), f'{folder}/{rank}.pth')


@pytest.mark.parametrize('world', [2, 3])
def test_ranks_agree(tmp_path, world):
    run_ranks(work, world, tmp_path)
    states = [torch.load(tmp_path / f'{rank}.pth') for rank in range(world)]
    shared = ('contrast.', 'loss_decode.', 'inference_prior.', 'conv_seg.')
    keys = [key for key in states[0] if key.startswith(shared)]
    for key in keys:
        for state in states[1:]:
            torch.testing.assert_close(state[key], states[0][key], rtol=0, atol=0)

    counts = torch.zeros(4)
    for rank in range(world - 1):
        for step in range(STEPS):
            counts += batch(rank, step, world)[1].flatten().bincount(minlength=4)
    assert (states[0]['loss_decode.online_counts'] == counts).all()
    held = set(states[0]['contrast.queue.labels'].tolist()) - {-1}
    assert held == set(range(2 + world - 2))
