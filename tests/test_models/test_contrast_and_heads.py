import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny import demo_run, segmentor
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.contrast import (
    ClassBalancedPixelSampler,
    ClassQueue,
    HardPixelSampler,
    PixelContrast,
    UniformPixelSampler,
)
from mmseg_ltmi.engine.hooks.reading_checks import raw_threshold_warning

COMMON = dict(in_channels=8, channels=8, num_classes=4, norm_cfg=dict(type='BN'))
LOSS = dict(type='LogitAdjustedLoss', class_prior=[60, 30, 9, 1], use_sigmoid=False)


def samples(label):
    out = []
    for one in label:
        sample = SegDataSample(metainfo=dict(img_path='street.png', img_shape=(16, 16)))
        sample.gt_sem_seg = PixelData(data=one[None])
        out.append(sample)
    return out


def head(**kwargs):
    contrast = dict(class_prior=[60, 30, 9, 1])
    return MODELS.build(
        dict(type='LTMIFCNHead', **COMMON, **{'loss_decode': LOSS, 'contrast': contrast, **kwargs})
    )


def test_queue_keeps_the_last_samples_of_each_class():
    queue = ClassQueue(2, 1, size=4, min_per_class=2)
    for first in (0, 5):
        values = torch.arange(first, first + 5.0)[:, None]
        queue.enqueue(values, torch.tensor([0, 0, 0, 1, 9]), torch.arange(5))
        held, labels, _ = queue.read()
        zeros = sorted(held[labels == 0, 0].tolist())
        assert zeros == [first + 1, first + 2]
    assert sorted(held[labels == 1, 0].tolist()) == [3, 8] and queue.fill() == 1
    with pytest.raises(ValueError, match='at least 4 slots'):
        ClassQueue(2, 1, size=3, min_per_class=2)


def test_queue_is_shared_out_by_a_power_of_the_prior():
    prior = torch.tensor([0.64, 0.32, 0.04])
    rooms = [[66, 34, 6], [53, 38, 15], [36, 35, 35]]  # 2 each, and 100 in proportion
    for power, room in zip((1.0, 0.5, 0.0), rooms, strict=True):
        queue = ClassQueue(3, 1, size=106, min_per_class=2, power=power)
        queue.allocate(prior)
        assert queue.room.tolist() == room
    with pytest.raises(ValueError, match=r'ClassQueue\.power is -1'):
        ClassQueue(3, 1, power=-1)
    with pytest.raises(ValueError, match=r'ClassQueue\.max_new is 0'):
        ClassQueue(3, 1, max_new=0)


def test_samplers_draw_what_they_report():
    torch.manual_seed(0)
    labels = torch.full((1, 100, 100), 255)
    labels[0, :90] = 0
    labels[0, 90:99] = 1
    prior = torch.tensor([90 / 99, 9 / 99])
    root = ClassBalancedPixelSampler(20000, power=0.5)  # 10:1 becomes 3.16:1
    for sampler, first in (
        (UniformPixelSampler(20000), 10 / 11),
        (root, 0.76),
        (HardPixelSampler(20000, power=0.5), 0.76),
        (ClassBalancedPixelSampler(20000), 0.5),
    ):
        drawn = sampler(labels, prior.log(), torch.zeros(1, 2, 100, 100))
        share = drawn.labels.bincount(minlength=2) / 20000
        torch.testing.assert_close(share, drawn.log_prior.exp(), atol=0.02, rtol=0)
        assert share[0].item() == pytest.approx(first, abs=0.02)
    with pytest.raises(ValueError, match='power is 1.5'):
        ClassBalancedPixelSampler(power=1.5)
    empty = sampler(torch.full((1, 4, 4), 255), prior.log())
    assert (empty.labels == -1).all()
    # Told otherwise, they draw alike.
    for told, expected in (('data', prior), ('uniform', torch.tensor([0.5, 0.5]))):
        for kind in (UniformPixelSampler, ClassBalancedPixelSampler):
            drawn = kind(20000, told_prior=told)(labels, prior.log())
            torch.testing.assert_close(drawn.log_prior.exp(), expected)
        torch.testing.assert_close(
            drawn.labels.bincount(minlength=2) / 20000, torch.tensor([0.5, 0.5]), atol=0.02, rtol=0
        )
    with pytest.raises(ValueError, match="told_prior is 'x'"):
        UniformPixelSampler(told_prior='x')


def test_hard_sampler_draws_by_hardness_within_a_class():
    torch.manual_seed(0)
    labels = torch.tensor([[[0, 0, 1, 255]]])
    # p(y|x) of the first two pixels: 0.9 and 0.1, hardness with the floor: 0.15 and 0.95.
    logits = torch.tensor([[0.9, 0.1, 0.5, 0.5], [0.1, 0.9, 0.5, 0.5]]).log().view(1, 2, 1, 4)
    drawn = HardPixelSampler(20000, floor=0.05)(labels, torch.zeros(2), logits)
    share = drawn.pixel.bincount(minlength=4) / 20000
    expected = torch.tensor([0.5 * 0.15 / 1.1, 0.5 * 0.95 / 1.1, 0.5, 0])
    torch.testing.assert_close(share, expected, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.log_prior.exp(), torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match='logits='):
        HardPixelSampler()(labels, torch.zeros(2))
    model = head()
    model.contrast.sampler = HardPixelSampler()
    loss = model.loss([torch.randn(2, 8, 8, 8)], samples(torch.zeros(2, 16, 16).long()), None)
    assert loss['loss_contrast'].isfinite()


def test_learned_temperature_moves_and_a_fixed_one_does_not():
    torch.manual_seed(0)
    for learn in (True, False):
        model = head(contrast=dict(class_prior=[60, 30, 9, 1], loss=dict(learn_temperature=learn)))
        losses = model.loss(
            [torch.randn(2, 8, 8, 8)], samples(torch.randint(0, 4, (2, 16, 16))), None
        )
        losses['loss_contrast'].backward()
        change = model.contrast.loss.log_temperature_change
        assert bool(change.grad) if learn else not change.requires_grad


def test_train_step_gives_finite_losses_and_gradients():
    torch.manual_seed(0)
    model = head()
    label = torch.randint(0, 4, (2, 16, 16))
    for labels in (label, torch.full_like(label, 255), torch.ones_like(label)):
        feature = torch.randn(2, 8, 8, 8, requires_grad=True)
        losses = model.loss([feature], samples(labels), None)
        total = sum(v for k, v in losses.items() if 'loss' in k)
        total.backward()
        assert total.isfinite() and feature.grad.isfinite().all()
    assert {'loss_contrast', 'acc_contrast', 'contrast_temperature', 'queue_fill'} <= set(losses)


def test_features_that_say_nothing_have_the_accuracy_of_chance():
    """A query is nearest to its own key, which does not count."""
    torch.manual_seed(0)
    contrast = PixelContrast(64, 4, class_prior=[25] * 4)
    result = contrast(torch.randn(2, 64, 16, 16), torch.randint(0, 4, (2, 16, 16)))
    assert result['acc_contrast'] == pytest.approx(25, abs=10)


def test_scores_are_read_as_natural_posterior_and_balanced():
    model = head().eval()
    raw = torch.randn(1, 4, 2, 2)
    prior = torch.tensor([0.6, 0.3, 0.09, 0.01]).log().view(1, 4, 1, 1)
    meta = [dict(img_shape=(2, 2))]
    torch.testing.assert_close(model.predict_by_feat(raw, meta), raw + prior, atol=1e-3, rtol=0)
    model.tau_test = 1.0
    torch.testing.assert_close(model.predict_by_feat(raw, meta), raw, atol=1e-3, rtol=0)


def test_state_dicts_go_both_ways():
    plain = MODELS.build(dict(type='FCNHead', **COMMON))
    ours = head()
    ours.load_state_dict(plain.state_dict(), strict=True)
    result = plain.load_state_dict(ours.state_dict(), strict=False)
    assert not result.missing_keys
    assert {k.split('.')[0] for k in result.unexpected_keys} == {'contrast', 'score_reader'}


def test_names_of_losses():
    for kind in ('LTMILoss', 'SoftmaxFocalLoss'):
        with pytest.raises(ValueError, match="loss_name is 'ltmi': it must start with 'loss_'"):
            MODELS.build(dict(type=kind, loss_name='ltmi'))
    loss = {**LOSS, 'loss_name': 'loss_contrast'}
    with pytest.raises(ValueError, match='name of the contrastive term'):
        head(loss_decode=loss)


@pytest.mark.parametrize(
    'loss, remedy',
    [
        (dict(type='GMLLoss'), r'GMLLoss cannot be loss_decode of {}: .*contrast=dict\(loss='),
        ([LOSS, dict(type='DistillationLoss')], 'DistillationLoss cannot .* {}: .*alpha=1.0'),
    ],
)
def test_a_loss_of_something_else_is_told_its_place(loss, remedy, tmp_path):
    with pytest.raises(ValueError, match=remedy.format('LTMIFCNHead')):
        head(loss_decode=loss)
    cfg = demo_run(tmp_path / 'run', 1)
    if isinstance(loss, dict):
        loss = dict(loss, num_classes=13)  # which building it by itself wants
    stock = segmentor(ltmi=False, head=dict(loss_decode=loss, num_classes=13))
    cfg.model.decode_head = stock['decode_head']
    with pytest.raises(ValueError, match=remedy.format('FCNHead')):
        Runner.from_cfg(cfg).train()


def test_bad_input():
    with pytest.raises(ValueError, match='street.png'):
        head().loss([torch.randn(1, 8, 8, 8)], samples(torch.full((1, 16, 16), 7)), None)
    with pytest.raises(ValueError, match='out_channels=1'):
        MODELS.build(dict(type='LTMIFCNHead', **{**COMMON, 'num_classes': 2}, out_channels=1))
    with pytest.raises(TypeError, match='LTMISideAdapterCLIPHead does not exist: its class logits'):
        MODELS.build(dict(type='LTMISideAdapterCLIPHead'))


class AddsOfSize(TorchDispatchMode):
    """Counts additions whose result has so many elements."""

    def __init__(self, numel):
        super().__init__()
        self.numel, self.count = numel, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.count += 'add' in str(function) and result.numel() == self.numel
        return result


@pytest.mark.parametrize('ltmi', [True, False])
def test_the_prior_goes_in_before_the_upsampling(ltmi):
    torch.manual_seed(0)
    prior = [90, 9, 1]
    head = MODELS.build(
        dict(
            type='LTMIFCNHead' if ltmi else 'FCNHead', in_channels=4, channels=4, num_classes=3,
            dropout_ratio=0, loss_decode=dict(type='LogitAdjustedLoss', class_prior=prior),
        )
    )  # fmt: skip
    labels = torch.randint(0, 3, (1, 64, 64))
    sample = samples(labels)[0]
    feature = torch.randn(1, 4, 8, 8)
    with AddsOfSize(3 * 64 * 64) as adds:
        losses = head.loss([feature], [sample], None)
    assert adds.count == (not ltmi)  # at full resolution, over the scores of 3 classes
    raw = F.interpolate(head([feature]), (64, 64), mode='bilinear')
    natural = raw + ClassPrior(prior).log_probs()[:, None, None]
    torch.testing.assert_close(losses['loss_ltmi'], F.cross_entropy(natural, labels))
    seen = natural if ltmi else raw
    accuracy = 100 * (seen.argmax(1) == labels).float().mean()
    torch.testing.assert_close(losses['acc_seg'][0], accuracy)


@pytest.mark.parametrize('kind', ['LTMILoss', 'LogitAdjustedLoss', 'SoftmaxFocalLoss'])
@pytest.mark.parametrize('name', ['FCNHead', 'LTMIFCNHead'])
def test_hard_pixels_are_mined_with_and_without_a_threshold(kind, name):
    torch.manual_seed(0)
    loss = dict(type=kind)
    if kind != 'SoftmaxFocalLoss':
        loss['class_prior'] = [60, 30, 9, 1]
    for sampler in (dict(min_kept=20), dict(min_kept=20, thresh=0.7)):
        sampler = dict(type='OHEMPixelSampler', **sampler)
        model = MODELS.build(dict(type=name, loss_decode=loss, sampler=sampler, **COMMON))
        features = [torch.randn(2, 8, 8, 8)]
        losses = model.loss(features, samples(torch.randint(0, 4, (2, 16, 16))), None)
        name_of_loss = model.loss_decode.loss_name
        assert losses[name_of_loss].ndim == 0 and losses[name_of_loss].isfinite()
        losses[name_of_loss].backward()


@pytest.mark.parametrize('loss', [LOSS, [LOSS, dict(type='DiceLoss')], dict(type='BLVLoss')])
def test_pixels_that_are_learned_are_not_hard(loss):
    """Frequent classes have low raw scores, by the prior that the loss adds."""
    if loss == dict(type='BLVLoss'):
        loss = dict(loss, class_prior=LOSS['class_prior'])
    sampler = dict(type='OHEMPixelSampler', thresh=0.7, min_kept=2)
    model = head(loss_decode=loss, contrast=None, sampler=sampler)
    natural = torch.tensor([0.95, 0.03, 0.015, 0.005]).log()
    raw = (natural - model.score_reader.natural_shift).view(1, 4, 1, 1).repeat(1, 1, 16, 16)
    raw[:, 1, 0, :4] = 9  # are not learned
    labels = torch.zeros(1, 1, 16, 16, dtype=torch.long)
    kept = model.sampler.sample(raw, labels)
    assert kept.sum() == kept[0, 0, :4].sum() == 4
    stock = MODELS.build(dict(COMMON, type='FCNHead', loss_decode=LOSS, sampler=sampler))
    assert 'FCNHead judges by raw scores' in raw_threshold_warning(stock)
    assert not raw_threshold_warning(model)
