"""What ranks share is bit-equal on all of them, and their step is that of one process."""

import pytest
import torch
from mmengine.registry import MODELS as ENGINE_MODELS
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from ranks import run_ranks
from tiny import total
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from mmseg_ltmi.core.contrast import PixelContrast, PixelSample
from mmseg_ltmi.core.region_rebalance import RegionRebalance

STEPS = 3
NUM_CLASSES = 4
COUNTS = [60, 30, 9, 1]


@ENGINE_MODELS.register_module(force=True)
class GlooSyncBatchNorm2d(nn.BatchNorm2d):
    """What SyncBatchNorm computes, which torch offers on GPUs only."""

    def forward(self, x):
        dims = (0, 2, 3)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = all_reduce(torch.cat([x.sum(dims), x.square().sum(dims), count]))
        mean, square = (part / sums[-1] for part in sums[:-1].chunk(2))
        normed = (x - mean[:, None, None]) / (square - mean.square() + self.eps).sqrt()[
            :, None, None
        ]
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


@MODELS.register_module(force=True)
class EveryPixel(nn.Module):
    """Draws nothing: each pixel once, in order."""

    needs_logits = False

    def forward(self, labels, class_log_prior, logits=None):
        flat = labels.flatten()
        known = flat.where(flat < NUM_CLASSES, -1)
        return PixelSample(torch.arange(flat.numel()), known, class_log_prior)


class Step(nn.Module):
    """The head's training step as a forward pass, which DistributedDataParallel wraps."""

    def __init__(self, norm='BN', sampler='ClassBalancedPixelSampler'):
        super().__init__()
        torch.manual_seed(0)
        sampler = dict(type=sampler)
        if sampler['type'] != 'EveryPixel':
            sampler['num_samples'] = 32
        self.head = MODELS.build(
            dict(
                type='LTMIFCNHead', in_channels=8, channels=8, num_classes=NUM_CLASSES,
                dropout_ratio=0, norm_cfg=dict(type=norm),
                loss_decode=dict(type='LogitAdjustedLoss', class_prior='online'),
                contrast=dict(queue=dict(size=64), sampler=sampler),
            )
        )  # fmt: skip

    def forward(self, features, labels):
        samples = []
        for label in labels:
            samples.append(SegDataSample(metainfo=dict(img_shape=tuple(label.shape))))
            samples[-1].gt_sem_seg = PixelData(data=label[None])
        return total(self.head.loss([features], samples, None))


def batch(case, rank, step, world):
    """Features and labels of a rank.

    uneven: ranks see different classes, the last batch of the last but one is smaller, and the
    last rank has no valid pixel at all. nothing: nobody has one. even: all have as many.
    """
    generator = torch.Generator().manual_seed(100 * rank + step)
    number, size = (1, 6) if (case, rank, step) == ('uneven', world - 2, STEPS - 1) else (2, 8)
    features = torch.randn(number, 8, size, size, generator=generator)
    known = min(2 + rank, NUM_CLASSES) if case == 'uneven' else NUM_CLASSES
    labels = torch.randint(0, known, (number, 2 * size, 2 * size), generator=generator)
    labels[:, :2] = 255
    if case == 'nothing' or (case == 'uneven' and rank == world - 1):
        labels.fill_(255)
    return features, labels


def train(model, batches, seed):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(seed)  # each rank draws its own pixels
    for features, labels in batches:
        optimizer.zero_grad()
        model(features, labels).backward()
        optimizer.step()


CASES = {
    'uneven': {},
    'nothing': {},
    'even': dict(norm='GlooSyncBatchNorm2d', sampler='EveryPixel'),
}


def work(rank, world, folder):
    for case, arguments in CASES.items():
        model = Step(**arguments)
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        train(wrapped, [batch(case, rank, step, world) for step in range(STEPS)], rank)
        torch.save(model.head.state_dict(), f'{folder}/{case}_{rank}.pth')
        distributed.barrier()


@pytest.fixture(scope='module', params=[2, 3])
def ranks(request, tmp_path_factory):
    """World size, and the state of each rank in each case."""
    world = request.param
    folder = tmp_path_factory.mktemp(f'ranks{world}')
    run_ranks(work, world, folder)
    return world, {
        case: [torch.load(folder / f'{case}_{rank}.pth') for rank in range(world)] for case in CASES
    }


@pytest.mark.parametrize('case', CASES)
def test_ranks_agree(ranks, case):
    _, states = ranks
    first, *others = states[case]
    shared = ('contrast.', 'loss_decode.', 'score_reader.', 'conv_seg.')
    keys = [key for key in first if key.startswith(shared)]
    for part in ('samples', 'labels', 'ids', 'pointer'):
        assert f'contrast.queue.{part}' in keys
    assert {'contrast.loss.log_temperature_change', 'loss_decode.prior.online_counts'} <= set(keys)
    for key in keys:
        for other in others:
            torch.testing.assert_close(other[key], first[key], rtol=0, atol=0, equal_nan=True)


def test_every_label_is_counted_once(ranks):
    world, states = ranks
    counts = torch.zeros(NUM_CLASSES)
    for rank in range(world):
        for step in range(STEPS):
            labels = batch('uneven', rank, step, world)[1]
            counts += labels[labels < NUM_CLASSES].bincount(minlength=NUM_CLASSES)
    state = states['uneven'][0]
    assert (state['loss_decode.prior.online_counts'] == counts).all()
    held = set(state['contrast.queue.labels'].tolist()) - {-1}
    assert held == set(range(min(world, NUM_CLASSES)))
    ids = state['contrast.queue.ids']
    assert len(ids[ids >= 0].unique()) == (ids >= 0).sum()


def test_nobody_has_a_pixel(ranks):
    state = ranks[1]['nothing'][0]
    for key, value in Step().head.named_parameters():
        torch.testing.assert_close(state[key], value.data, rtol=0, atol=0)
    assert (state['contrast.queue.labels'] == -1).all()


def test_the_step_is_that_of_one_process_on_the_whole_batch(ranks):
    world, states = ranks
    model = Step(sampler='EveryPixel')
    whole = []
    for step in range(STEPS):
        parts = [batch('even', rank, step, world) for rank in range(world)]
        whole.append([torch.cat(part) for part in zip(*parts, strict=True)])
    train(model, whole, 0)
    moved = 0
    for key, value in model.head.state_dict().items():
        if 'running_' in key or key.endswith(('queue.ids', 'num_batches_tracked')):
            continue  # GlooSyncBatchNorm2d keeps no statistics, and ranks mark their pixels
        torch.testing.assert_close(
            states['even'][0][key], value, rtol=1e-4, atol=1e-5, equal_nan=True
        )
        moved += key.endswith(('weight', 'bias'))
    assert moved


def stand_beside(rank, world, folder, kind, wrapped):
    torch.manual_seed(0)
    network = DistributedDataParallel(nn.Conv2d(3, 8, 3))
    term = {'PixelContrast': PixelContrast, 'RegionRebalance': RegionRebalance}[kind](8, 4, COUNTS)
    if wrapped:
        term = DistributedDataParallel(term, broadcast_buffers=False)
    optimizer = torch.optim.SGD([*network.parameters(), *term.parameters()], 0.1)
    torch.manual_seed(rank)
    for step in range(4):
        # Batches of two steps are summed up, after which the weights have moved.
        terms = term(network(torch.randn(2, 3, 8, 8)), torch.randint(0, 4, (2, 6, 6)))
        total(terms).backward()
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize('kind', ['PixelContrast', 'RegionRebalance'])
def test_a_term_beside_the_network_is_wrapped_as_well(tmp_path, kind):
    run_ranks(stand_beside, 2, tmp_path, kind, True)
    (tmp_path / 'again').mkdir()
    with pytest.raises(Exception, match=f'parameters of {kind} differ between the ranks'):
        run_ranks(stand_beside, 2, tmp_path / 'again', kind, False)
