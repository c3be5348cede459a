"""The auxiliary classifier of regions, and class means as keys of the contrast."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core import PixelContrast, RegionRebalance
from mmseg_ltmi.core.pixel_maps import class_means
from mmseg_ltmi.core.region_rebalance import simplex

PRIOR = ClassPrior([900, 90, 10], image_counts=[4, 2, 2], num_images=4)


def test_class_means_by_hand():
    features = torch.tensor([[1.0, 3, 5, 7], [10, 20, 30, 40]]).view(1, 2, 2, 2)
    labels = torch.tensor([[[0, 2], [0, 255]]])
    means, classes = class_means(features.half(), labels, 3)
    assert classes.tolist() == [0, -1, 2] and means.dtype == torch.float32
    torch.testing.assert_close(means, torch.tensor([[3.0, 20], [0, 0], [3, 20]]))
    # float16 would not hold the sum.
    large = torch.full((1, 1, 64, 64), 6e4, dtype=torch.float16)
    assert class_means(large, torch.zeros(1, 64, 64).long(), 1)[0].item() == large[0, 0, 0, 0]


def naive(features, labels, weight, bias, log_prior):
    losses = []
    for image, label in zip(features, labels, strict=True):
        for c in range(len(weight)):
            pixels = [image[:, y, x] for y, x in (label == c).nonzero().tolist()]
            if pixels:
                scores = weight @ (sum(pixels) / len(pixels)) + bias + log_prior
                losses.append(scores.exp().sum().log() - scores[c])
    return sum(losses) / len(losses)


@pytest.mark.parametrize('centers', ['learned', 'simplex'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_naive_reference_with_gradients(centers, dtype):
    torch.manual_seed(0)
    term = RegionRebalance(4, 3, PRIOR, centers, loss_weight=0.5)
    features = torch.randn(2, 4, 3, 5).to(dtype).requires_grad_()
    labels = torch.randint(0, 3, (2, 3, 5))
    labels[0, 0], labels[1][labels[1] == 2] = 255, 1  # class 2 is in the first image alone
    large = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    found = term(features, large)
    found['loss_region'].backward()
    assert found['loss_region'].dtype == torch.float32 and set(found) == {
        'loss_region',
        'acc_region',
    }

    wanted = features.detach().double().requires_grad_()
    learned = centers == 'learned'
    weight = (term.classifier.weight if learned else term.centers).detach().double()
    weight.requires_grad_()
    bias = term.classifier.bias.detach().double() if learned else torch.zeros(3).double()
    # Of the images: 4, 2 and 2 of 8 regions. The papers' simplex is not adjusted.
    prior = torch.tensor([0.5, 0.25, 0.25]).double().log() if learned else torch.zeros(3).double()
    reference = 0.5 * naive(wanted, labels, weight, bias, prior)
    reference.backward()
    torch.testing.assert_close(found['loss_region'].double(), reference, atol=1e-5, rtol=1e-5)
    close = dict(atol=1e-3, rtol=1e-2) if dtype == torch.float16 else dict(atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(features.grad.double(), wanted.grad, **close)
    if learned:
        torch.testing.assert_close(
            term.classifier.weight.grad.double(), weight.grad, atol=1e-5, rtol=1e-4
        )
    else:
        assert not list(term.parameters()) and 'centers' not in term.state_dict()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(0, 30))
def test_simplex_is_equiangular(classes, more):
    centers = simplex(classes, classes - 1 + more).double()
    products = torch.full((classes, classes), -1 / (classes - 1)).double().fill_diagonal_(1)
    torch.testing.assert_close(centers @ centers.T, products, atol=1e-6, rtol=0)
    assert torch.equal(centers, simplex(classes, classes - 1 + more).double())  # on every rank


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, 1e4), st.sampled_from(['learned', 'simplex']), st.integers(0, 999))
def test_it_is_finite_and_zero_where_no_pixel_has_a_class(size, centers, seed):
    torch.manual_seed(seed)
    term = RegionRebalance(6, 3, PRIOR, centers)
    features = (size * torch.randn(2, 6, 4, 4)).requires_grad_()
    labels = torch.randint(-1, 5, (2, 4, 4))
    term(features, labels)['loss_region'].backward()
    assert features.grad.isfinite().all()
    features.grad = None
    nothing = term(features, torch.full_like(labels, 255))
    nothing['loss_region'].backward()
    assert nothing['loss_region'] == 0 and nothing['acc_region'] == 0
    assert not features.grad.any()
    assert all(p.grad is not None for p in term.parameters())  # as ranks must agree on


def test_prior_of_presence(caplog):
    torch.testing.assert_close(
        RegionRebalance(4, 3, PRIOR).presence.log_prior.exp(), torch.tensor([0.5, 0.25, 0.25])
    )
    with caplog.at_level('WARNING'):
        term = RegionRebalance(4, 3, [90, 9, 1])
    assert 'RegionRebalance.class_prior' in caplog.text and 'no image counts' in caplog.text
    torch.testing.assert_close(
        term.presence.log_prior.exp(), torch.tensor([0.9, 0.09, 0.01]), atol=1e-5, rtol=0
    )
    # Online the regions are counted: class 0 twice, class 1 once.
    online = RegionRebalance(4, 3, 'online')
    labels = torch.zeros(2, 4, 4).long()
    labels[1, 2:] = 1
    assert online(torch.randn(2, 4, 4, 4), labels)['loss_region'].isfinite()
    assert online.presence.online_counts.tolist() == [2, 1, 0]
    assert online.prior.online_counts.tolist() == [24, 8, 0]
    open_prior = RegionRebalance(4, 3)
    with pytest.raises(RuntimeError, match=r'RegionRebalance\.class_prior is None'):
        open_prior(torch.randn(2, 4, 4, 4), labels)
    without = RegionRebalance(4, 3, tau=0)(torch.randn(2, 4, 4, 4), labels)
    assert without['loss_region'].isfinite()


def test_bad_input():
    with pytest.raises(ValueError, match="centers is 'fixed'"):
        RegionRebalance(4, 3, PRIOR, centers='fixed')
    with pytest.raises(ValueError, match='needs 9 channels for 10 classes, and .* have 8'):
        RegionRebalance(8, 10, centers='simplex')


def keys(features, labels, **options):
    torch.manual_seed(0)
    term = PixelContrast(
        2, 3, [1, 1, 1], queue=dict(size=30), sampler=dict(num_samples=6), region_keys=True,
        **options,
    )  # fmt: skip
    losses = term(features, labels, key_features=options.get('key_channels') and features)
    losses['loss_contrast'].backward()
    assert losses['loss_contrast'].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in term.parameters())
    return term


def test_region_means_are_keys_of_the_contrast():
    features = torch.tensor([[1.0, 3, 5, 7], [10, 20, 30, 40]]).view(1, 2, 2, 2).repeat(2, 1, 1, 1)
    features[1] += 1
    labels = torch.tensor([[[0, 2], [0, 255]], [[0, 0], [0, 0]]])
    means = torch.tensor([[3.0, 20], [3, 20], [5, 26]])  # of classes 0 and 2, and of image two's 0
    # A teacher's features are stored as they are.
    queue = keys(features, labels, key_channels=2).queue
    regions = (queue.labels >= 0) & (queue.ids == -1)
    assert queue.labels[regions].tolist() == [0, 0, 2]
    torch.testing.assert_close(queue.samples[regions], means[[0, 2, 1]])
    # By itself the term stores their embeddings, as those of the queries.
    term = keys(features, labels)
    regions = (term.queue.labels >= 0) & (term.queue.ids == -1)
    with torch.no_grad():
        embedded = term.projector(means[[0, 2, 1]])
    torch.testing.assert_close(term.queue.samples[regions], embedded)
    torch.testing.assert_close(F.normalize(embedded, dim=1), embedded)
    off = PixelContrast(2, 3, [1, 1, 1], queue=dict(size=30), sampler=dict(num_samples=6))
    off(features, labels)
    assert ((off.queue.labels < 0) == (off.queue.ids < 0)).all()
    assert math.isfinite(off.queue.fill())
