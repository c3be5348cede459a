"""BLVLoss: its noise, the logit adjustment that it hides, and how its scores are read."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ltmi.core.losses import BLVLoss, LogitAdjustedLoss, logit_adjusted_cross_entropy
from mmseg_ltmi.core.posterior import natural_shift_of, stated_shift

POSTERIOR = torch.tensor([0.90, 0.07, 0.03], dtype=torch.float64)
COUNTS = [90, 7, 3]


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 50), st.floats(0.05, 5))
def test_noise_mean_is_that_of_the_clamped_normal(sigma, bound):
    x = torch.linspace(0, 12, 200_001, dtype=torch.float64)
    density = (-x * x / 2).exp() * math.sqrt(2 / math.pi)
    by_hand = torch.trapezoid((sigma * x).clamp(max=bound) * density, x)
    loss = BLVLoss(COUNTS, sigma, bound)
    assert loss.noise_mean == pytest.approx(by_hand.item(), rel=1e-4)
    assert BLVLoss(COUNTS, sigma, bound, zero_mean=True).noise_mean == 0


def test_scale_and_shift_by_hand():
    # pi = 1/2, 1/4, 1/8, 1/8: -log2 pi = 1, 2, 3, 3.
    loss = BLVLoss([4, 2, 1, 1])
    scale = torch.tensor([1, 2, 3, 3]) / 3
    torch.testing.assert_close(loss.class_scale(), scale)
    assert loss.noise_mean == pytest.approx(0.900781, abs=1e-6)
    torch.testing.assert_close(natural_shift_of(loss, 4), 0.900781 * scale)
    assert not stated_shift([BLVLoss([4, 2, 1, 1], zero_mean=True)], 4).any()
    # An absent class does not shrink the scale of those that occur; it has the largest one.
    scale = BLVLoss([4, 2, 1, 1, 0]).class_scale()
    torch.testing.assert_close(scale, torch.tensor([1, 2, 3, 3, 3]) / 3, atol=1e-4, rtol=0)
    assert BLVLoss([7]).class_scale().tolist() == [0]  # the log of 1, and no division by it
    both = BLVLoss([4, 2, 1, 1], tau=0.5, class_weight=[1, 2, 3, 4]).natural_shift()
    apart = LogitAdjustedLoss([4, 2, 1, 1], 0.5, [1, 2, 3, 4]).natural_shift()
    torch.testing.assert_close(both - apart, natural_shift_of(loss, 4))
    assert BLVLoss().natural_shift() is None and BLVLoss().needs_class_prior


@pytest.mark.parametrize('zero_mean', [False, True])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_naive_reference_with_gradients(zero_mean, dtype):
    torch.manual_seed(0)
    given, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, 0] = 255
    loss = BLVLoss(COUNTS, sigma=2.0, bound=1.5, zero_mean=zero_mean, loss_weight=2.0)
    scores = given.to(dtype, copy=True).requires_grad_()
    torch.manual_seed(1)
    found = loss(scores, labels)
    found.backward()

    torch.manual_seed(1)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    noise = (2 * torch.randn(2, 3, 4, 5, dtype=kind)).double().clamp(-1.5, 1.5)
    noise = noise if zero_mean else noise.abs()
    wanted = given.to(dtype).double().clone().requires_grad_()
    surprise = -(torch.tensor(COUNTS, dtype=torch.float64) / 100).log()
    varied, total = wanted + noise * (surprise / surprise.max()).view(1, 3, 1, 1), 0
    for b, h, w in (labels != 255).nonzero().tolist():
        p = varied[b, :, h, w].exp() / varied[b, :, h, w].exp().sum()
        total = total - p[labels[b, h, w]].log()
    total = 2 * total / (labels != 255).sum()
    total.backward()
    torch.testing.assert_close(found.double(), total, atol=2e-5, rtol=1e-5)
    close = dict(atol=2e-3, rtol=2e-3) if dtype == torch.float16 else dict(atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(scores.grad.double(), wanted.grad, **close)


def test_noise_is_of_training_and_of_each_call():
    scores, labels = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 8, 8))
    loss = BLVLoss(COUNTS)
    assert loss(scores, labels) != loss(scores, labels)
    plain = F.cross_entropy(scores, labels)
    torch.testing.assert_close(loss.eval()(scores, labels), plain)
    assert loss.train()(scores, labels, reduction_override='none').shape == (1, 8, 8)
    nothing = loss(scores.requires_grad_(), torch.full_like(labels, 255))
    nothing.backward()
    assert nothing == 0 and not scores.grad.any()
    online = BLVLoss('online')
    assert online(scores, labels).isfinite() and online.natural_shift().shape == (3,)


def fitted(loss):
    """The free scores that minimise the loss's mean over its noise, for a known posterior."""
    # As many labels of each class as the posterior says: only the noise is random.
    labels = torch.repeat_interleave(torch.arange(3), (30_000 * POSTERIOR).round().long())[None]
    scores = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=50, line_search_fn='strong_wolfe')

    def value():
        torch.manual_seed(0)  # the same noise in every call
        optimizer.zero_grad()
        found = loss(scores.expand(1, labels.numel(), 3).mT, labels)
        found.backward()
        return found

    optimizer.step(value)
    return scores.detach()


def test_the_minimiser_is_read_right_by_the_natural_shift():
    loss = BLVLoss(COUNTS)
    scores = fitted(loss)
    read = (scores + loss.natural_shift()).softmax(0).double()
    raw = scores.softmax(0).double()
    torch.testing.assert_close(read.log(), POSTERIOR.log(), atol=0.06, rtol=0)
    # Read as they are, the scores of rare classes are too low, by the shift.
    assert raw[2] < 0.5 * POSTERIOR[2]
    # So training on the adjusted scores without noise has the same minimiser, to first order.
    shift = -loss.noise_mean / -loss.log_prior.min()
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))[None]
    adjusted = scores.clone().requires_grad_()
    logit_adjusted_cross_entropy(
        adjusted.expand(1, 100, 3).mT, labels, loss.log_prior, shift.item()
    ).backward()
    assert adjusted.grad.abs().max() < 0.01


def test_the_control_hides_no_adjustment_to_first_order():
    # The rest is of second order: a hundredth of it where the noise is a tenth.
    error = {}
    for bound in (1.0, 0.1):
        loss = BLVLoss(COUNTS, sigma=4 * bound, bound=bound, zero_mean=True)
        assert not loss.natural_shift().any()
        read = fitted(loss).softmax(0).double()
        error[bound] = (read.log() - POSTERIOR.log()).abs().max()
    assert error[1.0] < math.log(math.cosh(1)) and error[0.1] < 0.02 * error[1.0] + 2e-3


def test_bad_input():
    for options in (dict(sigma=0), dict(sigma=math.inf), dict(bound=-1)):
        with pytest.raises(ValueError, match=r'BLVLoss\.sigma is .* and bound is'):
            BLVLoss(COUNTS, **options)
    with pytest.raises(ValueError, match='4 channels, but the class prior of BLVLoss has 3'):
        BLVLoss(COUNTS)(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2).long())
    with pytest.raises(RuntimeError, match=r'BLVLoss\.class_prior is None'):
        BLVLoss()(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long())
