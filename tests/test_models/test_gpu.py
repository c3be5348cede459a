"""What only a GPU can break: agreement with the CPU, mixed precision, and waits of the host.

Without a GPU they run on the CPU, where operators are refused whose result a host would wait for.
"""

import copy
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from masks import NAMES, mask_batch, mask_segmentor
from mmseg.registry import MODELS
from tiny import COUNTS, batch, segmentor, total
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.contrast import (
    ClassBalancedPixelSampler,
    ClassQueue,
    HardPixelSampler,
    PixelContrast,
    UniformPixelSampler,
)
from mmseg_ltmi.core.losses import (
    DistillationLoss,
    GMLLoss,
    LogitAdjustedLoss,
    LTMILoss,
    SoftmaxFocalLoss,
)
from mmseg_ltmi.models.segmentors import last_head

has_gpu = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not has_gpu, reason='needs a GPU')
on_each_device = pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=needs_gpu)])
LOSSES = {
    'logit adjustment': lambda: LogitAdjustedLoss(COUNTS),
    'mean over all pixels': lambda: LogitAdjustedLoss(COUNTS, avg_non_ignore=False),
    'tau and weights': lambda: LTMILoss(COUNTS),
    'online prior': lambda: LTMILoss('online', num_classes=4),
    'focal': lambda: SoftmaxFocalLoss(),
    'distillation': lambda: DistillationLoss(),
}
SAMPLERS = [UniformPixelSampler, ClassBalancedPixelSampler, HardPixelSampler]
TEACHERS = [None, dict(type='EMA', momentum=0.9), 'frozen']


def pixels(seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (2, size, size), generator=generator)
    labels[:, :2] = 255
    return torch.randn(2, 4, size, size, generator=generator), labels


def value_and_gradient(name, loss, scores, labels):
    scores = scores.detach().requires_grad_()
    others = (scores.detach().flip(1),) if name == 'distillation' else ()
    value = loss(scores, *others, labels)
    value.backward()
    return value.detach().cpu(), scores.grad.cpu()


@on_each_device
@pytest.mark.parametrize('name', LOSSES)
def test_losses_agree_with_float64_on_the_cpu(name, device):
    loss, (scores, labels) = LOSSES[name](), pixels()
    exact = value_and_gradient(name, copy.deepcopy(loss), scores.double(), labels)
    ours = value_and_gradient(name, loss.to(device), scores.to(device), labels.to(device))
    for value, reference in zip(ours, exact, strict=True):
        torch.testing.assert_close(value.double(), reference.double(), rtol=1e-4, atol=1e-7)


@on_each_device
@pytest.mark.parametrize('own_key', [True, False])
@pytest.mark.parametrize('learn', [True, False])
@pytest.mark.parametrize('switch', ['0', 'tf32x3'])
def test_gradients_of_the_contrast_agree_with_the_cpu(switch, learn, own_key, device, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query, key = (F.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (64, 128))
    labels, key_labels = (torch.randint(-1, 4, (n,), generator=generator) for n in (64, 128))
    ids, log_prior = torch.arange(128) // 2, ClassPrior(COUNTS).log_probs()
    results = []
    for dtype, place, form in ((torch.float32, device, switch), (torch.float64, 'cpu', '0')):
        monkeypatch.setenv('LTMI_TRITON', form)
        loss = GMLLoss(4, learn_temperature=learn, own_key=own_key).to(place, dtype)
        q, k = (x.clone().to(place, dtype).requires_grad_() for x in (query, key))
        others = [x.to(place) for x in (labels, key_labels, log_prior, ids)]
        value = loss(q, others[0], k, *others[1:3], query_ids=others[3][:64], key_ids=others[3])
        value.backward()
        leaves = [q, k, *([loss.log_temperature_change] if learn else [])]
        results.append([value.detach().cpu().double(), *(x.grad.cpu().double() for x in leaves)])
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-3, atol=1e-5)


@on_each_device
@pytest.mark.parametrize('kind', SAMPLERS)
def test_sampler_draws_what_the_labels_say(kind, device):
    scores, labels = (x.to(device) for x in pixels())
    log_prior = ClassPrior(COUNTS).log_probs().to(device)
    sample = kind(200)(labels, log_prior, scores)
    assert {x.device.type for x in sample} == {device}
    assert sample.labels.equal(labels.flatten()[sample.pixel]) and (sample.labels < 4).all()
    assert sample.labels.unique().numel() == 4
    nothing = kind(8)(torch.full_like(labels, 255), log_prior, scores)
    assert (nothing.labels == -1).all()


@on_each_device
def test_queue_holds_the_same_as_on_the_cpu(device):
    queues = [ClassQueue(4, 3, size=40).to(place) for place in ('cpu', device)]
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        samples = torch.randn(30, 3, generator=generator)
        samples[3] = torch.nan
        labels = torch.randint(-1, 5, (30,), generator=generator)
        for queue in queues:
            place = queue.samples.device
            queue.enqueue(samples.to(place), labels.to(place), torch.arange(30, device=place))
    for ours, exact in zip(queues[1].read(), queues[0].read(), strict=True):
        assert ours.cpu().equal(exact)


def model_with(teacher, folder):
    if teacher == 'frozen':
        config = segmentor(34, 24, ltmi=False)
        other = MODELS.build(copy.deepcopy(config))
        nn.init.normal_(last_head(other).conv_seg.weight)
        torch.save(dict(state_dict=other.state_dict()), folder / 'teacher.pth')
        teacher = dict(config=dict(model=config), checkpoint=str(folder / 'teacher.pth'))
    more = dict(type='DistilledEncoderDecoder', teacher=teacher, alpha=1.0) if teacher else {}
    return MODELS.build(segmentor(**more)).train()


@on_each_device
@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('teacher', TEACHERS, ids=['self', 'EMA', 'frozen'])
def test_mixed_precision_does_not_diverge(teacher, scaled, device, tmp_path):
    torch.manual_seed(0)
    model = model_with(teacher, tmp_path).to(device)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)
    scaler = torch.amp.GradScaler(device, enabled=scaled)
    for step in range(60 if device == 'cuda' else 2):
        inputs, samples = batch(step % 4)
        with torch.autocast(device, torch.float16 if scaled else torch.bfloat16):
            losses = model.loss(inputs.to(device), [sample.to(device) for sample in samples])
        optimizer.zero_grad()
        scaler.scale(total(losses)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert total(losses).isfinite()
    assert all(value.isfinite().all() for value in model.parameters())
    if device == 'cuda' and scaled:
        assert scaler.get_scale() >= 1024


def contrasts():
    """Of every sampler, with and without a teacher, and what they are given beside the labels."""
    for kind in SAMPLERS:
        for teacher in (False, True):
            for prior in (COUNTS, 'online'):
                yield kind, teacher, prior


class NoWaits(TorchDispatchMode):
    """Refuses what would need the device's answer: values, and shapes that depend on values."""

    WAITING = {'_local_scalar_dense', 'nonzero', 'masked_select', '_unique2', 'equal', 'bincount'}
    INDEXING = {'index', 'index_put', 'index_put_', '_index_put_impl_'}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix('aten::')
        picks = args[1] if name in self.INDEXING else []
        masks = [index for index in picks if index is not None and index.dtype == torch.bool]
        if name in self.WAITING or masks:
            raise RuntimeError(f'the host waits for {name}')
        return function(*args, **(kwargs or {}))


def without_waiting(module, step):
    """Take steps with a module; an error where the host would wait for the device."""
    if not has_gpu:
        # Labels are checked on a CPU alone.
        with NoWaits(), patch('mmseg_ltmi.core.losses.functional._check_labels'):
            step(module, 'cpu')
        return
    module.cuda()
    for mode in ('default', 'default', 'error'):  # the first steps may set the device up
        torch.cuda.set_sync_debug_mode(mode)
        try:
            step(module, 'cuda')
        finally:
            torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('kind, teacher, prior', [*contrasts()])
def test_no_host_waits_in_the_contrast(kind, teacher, prior):
    term = PixelContrast(
        8, 4, prior, queue=dict(size=64), sampler=kind(48), key_channels=6 if teacher else None
    )
    if prior == 'online':
        term(torch.randn(2, 8, 8, 8), pixels()[1], *pixels(size=8)[:1], *keys('cpu', teacher))

    def step(module, device):
        labels = torch.zeros(2, 16, 16, dtype=torch.int64, device=device)
        features = torch.randn(2, 8, 8, 8, device=device, requires_grad=True)
        scores = torch.randn(2, 4, 8, 8, device=device)
        module(features, labels, scores, *keys(device, teacher))['loss_contrast'].backward()
        assert features.grad.shape == features.shape

    without_waiting(term, step)


def keys(device, teacher):
    return [torch.randn(2, 6, 4, 4, device=device)] if teacher else []


@pytest.mark.parametrize('name', LOSSES)
def test_no_host_waits_in_a_loss(name):
    loss = LOSSES[name]()
    if name == 'online prior':
        loss(*pixels())

    def step(module, device):
        scores = torch.randn(2, 4, 16, 16, device=device, requires_grad=True)
        labels = torch.zeros(2, 16, 16, dtype=torch.int64, device=device)
        others = (scores.detach(),) if name == 'distillation' else ()
        module(scores, *others, labels).backward()
        assert scores.grad.shape == scores.shape

    without_waiting(loss, step)


class Copies(TorchDispatchMode):
    """Refuses copies between devices that the host waits for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function._schema.name, kwargs or {}
        moves = name == 'aten::copy_' and args[0].device != args[1].device
        if name == 'aten::_to_copy':
            moves = kwargs.get('device', args[0].device) != args[0].device
        non_blocking = kwargs.get('non_blocking') or (len(args) > 2 and args[2])
        assert not moves or non_blocking, f'the host waits for {name}'
        return function(*args, **kwargs)


@pytest.mark.parametrize('weight', [None, [1.0, 2.0, 3.0, 4.0]])
@pytest.mark.parametrize('test_prior', [None, [1, 2, 3, 4]])
def test_no_host_waits_for_what_a_cross_entropy_says_of_its_scores(weight, test_prior):
    """The meta device has a GPU's part here."""
    loss = dict(type='CrossEntropyLoss', class_weight=weight)
    head = dict(loss_decode=loss, contrast=None, class_prior=COUNTS, test_prior=test_prior)
    module = MODELS.build(segmentor(head=head)).decode_head
    known = module.score_reader.natural_shift.clone()
    if has_gpu:
        without_waiting(module, lambda module, _: module._update_reader(in_training=True))
        torch.testing.assert_close(module.score_reader.natural_shift.cpu(), known)
    else:
        module.to('meta')
        with Copies():
            module._update_reader(in_training=True)


def test_a_wait_is_found():
    def step(module, device):
        module.weight[module.weight > 0].sum()

    with pytest.raises(RuntimeError, match='wait|synchroniz'):
        without_waiting(nn.Linear(2, 2), step)


@on_each_device
@pytest.mark.parametrize('name', NAMES)
def test_mask_classifiers_train_as_on_the_cpu(name, device):
    torch.manual_seed(0)
    model = MODELS.build(mask_segmentor(name)).eval()  # without dropout, which each draws
    inputs, samples = mask_batch()
    twin, its_samples = copy.deepcopy(model).to(device), [s.to(device) for s in samples]
    losses = twin.loss(inputs.to(device), its_samples)
    total(losses).backward()
    for parameter in twin.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    assert twin.decode_head.cls_embed.weight.grad.any()
    if name == 'MaskFormerHead':  # the other one draws points, and each draws queries to contrast
        expected = model.loss(inputs, samples)
        for key in (key for key in expected if 'loss' in key and 'contrast' not in key):
            torch.testing.assert_close(losses[key].cpu(), expected[key], rtol=1e-2, atol=1e-4)
