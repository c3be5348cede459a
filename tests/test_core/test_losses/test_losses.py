import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.models.losses import CrossEntropyLoss

from mmseg_ltmi.core.losses import (
    BLVLoss,
    DistillationLoss,
    GMLLoss,
    LogitAdjustedLoss,
    LTMILoss,
    SoftmaxFocalLoss,
)
from mmseg_ltmi.core.losses.functional import (
    class_log_likelihood,
    gml_loss,
    logit_adjusted_cross_entropy,
)


def naive_gml(q, y, k, ky, log_prior, t, q_ids=None, k_ids=None):
    losses = []
    for i in range(len(q)):
        joint = {}
        for c in range(len(log_prior)):
            mine = [
                j for j in range(len(k)) if ky[j] == c and (q_ids is None or q_ids[i] != k_ids[j])
            ]
            if mine:
                mean = sum(torch.exp((q[i] * k[j]).sum() / t) for j in mine) / len(mine)
                joint[c] = mean.log() + log_prior[c]
        if int(y[i]) in joint:
            total = sum(v.exp() for v in joint.values())
            losses.append(total.log() - joint[int(y[i])])
    return sum(losses) / len(losses)


def problem(dtype=torch.float64):
    torch.manual_seed(0)
    q = F.normalize(torch.randn(7, 5, dtype=torch.float64), dim=1)
    k = torch.cat([q[:3], F.normalize(torch.randn(9, 5, dtype=torch.float64), dim=1)])
    y = torch.tensor([0, 1, 2, 0, 3, 1, 4])
    ky = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2, 1, 4, 4, -1])  # class 3 has no key
    log_prior = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1], dtype=torch.float64).log()
    ids = torch.arange(7)
    k_ids = torch.tensor([0, 1, 2] + [-1] * 9)
    return q.to(dtype), y, k.to(dtype), ky, log_prior.to(dtype), ids, k_ids


@pytest.mark.parametrize('with_ids', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gml_equals_naive_reference_with_gradients(with_ids, dtype):
    results = []
    for function, kind in ((gml_loss, dtype), (naive_gml, torch.float64)):
        q, y, k, ky, log_prior, ids, k_ids = problem(kind)
        log_t = torch.tensor(math.log(0.2), dtype=kind, requires_grad=True)
        q.requires_grad_(), k.requires_grad_()
        names = ('query_ids', 'key_ids') if function is gml_loss else ('q_ids', 'k_ids')
        extra = dict(zip(names, (ids, k_ids), strict=True)) if with_ids else {}
        loss = function(q, y, k, ky, log_prior, log_t.exp(), **extra)
        loss.backward()
        results.append([loss.detach(), q.grad, k.grad, log_t.grad])
    for ours, reference in zip(*results, strict=True):
        error = (ours.double() - reference).norm() / reference.norm()
        assert error < 1e-5


@pytest.mark.parametrize('own_key', [True, False])
def test_module_is_feature_term_plus_temperature_term(own_key):
    q, y, k, ky, log_prior, ids, k_ids = problem()
    q.requires_grad_()
    loss = GMLLoss(5, temperature=0.2, loss_weight=1.0, own_key=own_key).double()
    value = loss(q, y, k, ky, log_prior, query_ids=ids, key_ids=k_ids)
    value.backward()
    p = q.detach().clone().requires_grad_()
    log_t = torch.tensor(math.log(0.2), dtype=torch.float64, requires_grad=True)
    first = naive_gml(p, y, k, ky, log_prior, 0.2, *(() if own_key else (ids, k_ids)))
    second = naive_gml(q.detach(), y, k, ky, log_prior, log_t.exp(), ids, k_ids)
    (first + second).backward()
    assert torch.allclose(value, first + second, rtol=1e-5)
    assert torch.allclose(q.grad, p.grad, rtol=1e-5)
    assert torch.allclose(loss.log_temperature_change.grad, log_t.grad, rtol=1e-5)


def test_own_keys_are_told_by_identities():
    q, y, k, ky, log_prior, _, _ = problem()
    with pytest.raises(ValueError, match=r'own_key=False\) needs query_ids'):
        GMLLoss(5, own_key=False)(q, y, k, ky, log_prior)


@pytest.mark.parametrize('learn', [True, False])
def test_a_checkpoint_with_a_scalar_temperature_loads(learn):
    loss = GMLLoss(5, learn_temperature=learn)
    loss.load_state_dict({'log_temperature': torch.tensor(math.log(0.2))})
    # A fixed one is the config's.
    assert loss.temperature.item() == pytest.approx(0.2 if learn else 0.1)


def test_no_usable_query_is_zero_with_a_graph():
    q, _, k, ky, log_prior, _, _ = problem()
    q.requires_grad_()
    loss = gml_loss(q, torch.full((7,), -1), k, ky, log_prior, 0.1)
    loss.backward()
    assert loss == 0 and (q.grad == 0).all()


def test_class_without_key_is_minus_infinity_and_small_temperature_is_finite():
    q, _, k, ky, _, _, _ = problem()
    ll = class_log_likelihood(q, k, ky, 5, 1e-3)
    assert (ll[:, 3] == -torch.inf).all() and ll[:, [0, 1, 2, 4]].isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.floats(0, 1), st.integers(0, 1000))
def test_uniform_prior_is_cross_entropy(classes, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(2, classes, 3, 4, generator=generator)
    y = torch.randint(0, classes, (2, 3, 4), generator=generator)
    y[0, 0, 0] = 255
    weight = torch.rand(classes, generator=generator) + 0.1
    for w in (None, weight):
        ours = logit_adjusted_cross_entropy(
            s, y, torch.full((classes,), -math.log(classes)), tau, class_weight=w
        )
        torch.testing.assert_close(ours, F.cross_entropy(s, y, weight=w, ignore_index=255))


def test_logit_adjustment_by_hand():
    loss = LogitAdjustedLoss([3, 1])
    value = loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[1]]]))
    assert value.item() == pytest.approx(math.log(4), abs=1e-4)


def test_natural_shift_and_weights():
    loss = LogitAdjustedLoss([6, 3, 1], tau=0.5, class_weight='median_frequency')
    p = torch.tensor([0.6, 0.3, 0.1])
    torch.testing.assert_close(
        loss.natural_shift(), 0.5 * p.log() - (0.3 / p).log(), rtol=1e-4, atol=1e-4
    )
    for name, power in (('inverse', 1), ('inverse_sqrt', 0.5)):
        found = LogitAdjustedLoss([6, 3, 1], class_weight=name).class_weights()
        torch.testing.assert_close(found, (1 / (3 * p)) ** power, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['inverse', 'inverse_sqrt', 'median_frequency'])
def test_a_class_that_never_occurs_weighs_as_the_rarest_that_does(name):
    weights = LogitAdjustedLoss([8, 4, 2, 0], class_weight=name).class_weights()
    assert weights[3] == weights[2] == weights.max()
    assert weights[2] > weights[1] > weights[0]


@pytest.mark.parametrize('avg_non_ignore', [True, False])
def test_the_mean_divides_as_that_of_mmsegmentation(avg_non_ignore):
    stock: Any = CrossEntropyLoss(avg_non_ignore=avg_non_ignore, class_weight=[1.0, 2, 4])
    ours = LogitAdjustedLoss(
        [6, 3, 1], tau=0.0, class_weight=[1.0, 2, 4], avg_non_ignore=avg_non_ignore
    )
    scores, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    torch.testing.assert_close(ours(scores, labels), stock(scores, labels))
    # Half of the pixels are ignored, and the others are alike.
    scores, labels = scores[:1, :, :1, :1].expand(2, 3, 4, 4), torch.ones(2, 4, 4).long()
    whole = ours(scores, labels)
    labels[0] = 255
    torch.testing.assert_close(ours(scores, labels), whole if avg_non_ignore else whole / 2)


def test_a_fixed_temperature_is_that_of_the_config():
    learned = GMLLoss(4, temperature=0.2)
    with torch.no_grad():
        learned.log_temperature_change.fill_(0.5)
    fixed = GMLLoss(4, temperature=0.05, learn_temperature=False)
    for state in (learned.state_dict(), {'log_temperature': torch.tensor(-1.0)}):
        fixed.load_state_dict(state)
        assert fixed.temperature.item() == pytest.approx(0.05)
    learned.load_state_dict(fixed.state_dict())
    assert learned.temperature.item() == pytest.approx(0.05)


def test_median_frequency_is_that_of_the_classes_that_occur():
    weights = LogitAdjustedLoss([8, 4, 2, 0, 0, 0, 0], class_weight='median_frequency')
    torch.testing.assert_close(
        weights.class_weights()[:3], torch.tensor([0.5, 1, 2]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ('class_weight', 'tau'),
    [(None, 1.0), ('inverse_sqrt', 0.5), ('inverse', 0.0), ('median_frequency', 0.0)],
)
def test_matched_weights_and_tau_leave_the_same_posterior(class_weight, tau):
    # Where tau matches the weights, raw scores are those of the balanced classifier.
    shift = LogitAdjustedLoss([6, 3, 1], tau=tau, class_weight=class_weight).natural_shift()
    expected = torch.tensor([0.6, 0.3, 0.1]).log()
    torch.testing.assert_close(
        shift - shift.mean(), expected - expected.mean(), rtol=1e-4, atol=1e-4
    )


def test_all_ignored_is_zero_with_a_graph():
    s = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = LogitAdjustedLoss([1, 1])(s, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss == 0 and (s.grad == 0).all()


def test_bad_input():
    with pytest.raises(ValueError, match='out_channels=1'):
        LogitAdjustedLoss([1, 1])(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2).long())
    with pytest.raises(ValueError, match=r'labels \[7\]'):
        LogitAdjustedLoss([1, 1])(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 7))
    with pytest.raises(ValueError, match='softmax loss'):
        LogitAdjustedLoss([1, 1], use_sigmoid=True)
    with pytest.raises(ValueError, match='3 entries'):
        LogitAdjustedLoss([1, 1], class_weight=[1, 2, 3])
    with pytest.raises(RuntimeError, match='ClassPriorHook|name a prior'):
        LogitAdjustedLoss()(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2).long())


def test_distillation_by_hand():
    # softmax(s / 2) = (1/3, 2/3), softmax(t / 2) = (1/2, 1/2).
    s = torch.tensor([0.0, 2 * math.log(2)]).view(1, 2, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
    t = torch.full((1, 2, 1, 2), 7.0)
    labels = torch.tensor([[[1, 255]]])
    loss = DistillationLoss(temperature=2.0, loss_weight=0.5)(s, t, labels)
    divergence = 0.5 * math.log(3 / 2) + 0.5 * math.log(3 / 4)
    assert loss.item() == pytest.approx(0.5 * 4 * divergence, rel=1e-5)
    loss.backward()
    assert s.grad[..., 0].any() and not s.grad[..., 1].any()
    nothing = DistillationLoss()(s, t, torch.full_like(labels, 255))
    nothing.backward()
    assert nothing == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.floats(0.5, 10), st.floats(0.1, 1e4), st.integers(0, 1000))
def test_distillation_is_a_divergence(classes, temperature, size, seed):
    generator = torch.Generator().manual_seed(seed)
    s, t = (size * torch.randn(2, classes, 3, generator=generator) for _ in range(2))
    labels = torch.zeros(2, 3, dtype=torch.int64)
    loss = DistillationLoss(temperature)
    assert loss(s, t, labels) >= 0 and loss(s, t, labels).isfinite()
    assert loss(s, s + 3, labels).abs() <= 1e-5 * temperature**2 * max(1, size)  # shifts cancel


def test_bad_distillation():
    with pytest.raises(ValueError, match='temperature must be positive'):
        DistillationLoss(temperature=0)
    with pytest.raises(ValueError, match='loss_weight is -1'):
        DistillationLoss(loss_weight=-1)


def test_focal_by_hand():
    pred = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]]).log_softmax(1)
    label = torch.tensor([[[0, 1]]])
    loss = SoftmaxFocalLoss(gamma=2.0, loss_weight=3.0)
    p = torch.stack([pred[0, 0, 0, 0], pred[0, 1, 0, 1]]).exp()
    by_hand = 3 * ((1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(loss(pred, label), by_hand)
    weighted = loss(pred, label, weight=torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(weighted, 3 * (1 - p[0]) ** 2 * -p[0].log() / 2)
    # gamma 0 is cross-entropy; an ignored pixel takes no part; a sure one has a finite gradient.
    label[0, 0, 1] = 255
    torch.testing.assert_close(SoftmaxFocalLoss(0.0)(pred, label), -p[0].log())
    sure = (1000 * torch.tensor([[[[1.0]], [[0.0]]]])).requires_grad_()
    for gamma in (0.5, 2.0):
        SoftmaxFocalLoss(gamma)(sure, torch.zeros(1, 1, 1, dtype=torch.long)).backward()
    assert sure.grad.isfinite().all()
    nothing = SoftmaxFocalLoss()(pred.requires_grad_(), torch.full((1, 1, 2), 255))
    assert nothing.item() == 0 and nothing.requires_grad
    with pytest.raises(ValueError, match='gamma must not be negative'):
        SoftmaxFocalLoss(-1.0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    'class_weight', ['median_frequency', 'inverse_sqrt', [1.1, 2.3, 0.7], None]
)
def test_a_model_of_half_precision_keeps_prior_and_temperature(class_weight, dtype):
    """Half precision rounds the shift of a rare class by a percent, and counts overflow in it."""
    for prior in ([90, 9, 1], 'online'):
        exact, half = (
            LogitAdjustedLoss(prior, class_weight=class_weight, num_classes=3) for _ in range(2)
        )
        half.to(dtype)
        scores = torch.randn(1, 3, 300, 300).to(dtype)
        labels = torch.randint(0, 3, (1, 300, 300))
        losses = exact(scores, labels), half(scores, labels)
        torch.testing.assert_close(*losses, rtol=0, atol=0)
        half.to(dtype)
        assert torch.equal(half.natural_shift(), exact.natural_shift())
        assert prior != 'online' or half.online_counts.sum() == 300 * 300
    for learned in (True, False):
        terms = [GMLLoss(3, 0.07, learn_temperature=learned) for _ in range(2)]
        assert torch.equal(terms[0].temperature, terms[1].to(dtype).temperature)


@pytest.mark.parametrize('kind', [LogitAdjustedLoss, LTMILoss, BLVLoss])
@pytest.mark.parametrize(
    'options', [dict(reduction='none'), dict(ingore_index=0), dict(avg_factor=7)]
)
def test_what_a_loss_would_not_do_is_refused(kind, options):
    loss = kind([90, 9, 1])
    scores, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    with pytest.raises(TypeError, match=f'unexpected keyword argument .{next(iter(options))}'):
        loss(scores, labels, **options)


@pytest.mark.parametrize('loss', [LogitAdjustedLoss([90, 9, 1]), SoftmaxFocalLoss()])
def test_reductions_are_of_the_loss_of_each_pixel(loss):
    scores, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    labels[0, 0] = 255
    each = loss(scores, labels, reduction_override='none')
    torch.testing.assert_close(loss(scores, labels, reduction_override='sum'), each.sum())
    for mean in (None, 'mean'):
        found = loss(scores, labels, reduction_override=mean)
        torch.testing.assert_close(found, each.sum() / 12)
    with pytest.raises(ValueError, match="reduction is 'average': use 'mean'"):
        loss(scores, labels, reduction_override='average')
