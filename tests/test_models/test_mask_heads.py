"""MaskFormer's and Mask2Former's heads in their LTMI form, from the stock configs at toy size."""

import copy
import importlib
import logging
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from masks import (
    CONTRAST,
    FILES,
    LOSS,
    NAMES,
    PRIOR,
    any_segmentor,
    mask_batch,
    mask_segmentor,
    needs_mmdet,
)
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from ranks import run_ranks
from tiny import COUNTS, demo_run, total
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis.convert import to_stock
from mmseg_ltmi.compat import _MissingOps, torch_deformable_attention
from mmseg_ltmi.core import OperatingPoint
from mmseg_ltmi.core.contrast import HardPixelSampler, MatchedQuerySampler
from mmseg_ltmi.core.losses import LabelOutOfRangeError
from mmseg_ltmi.engine.hooks.class_prior_hook import fill_in
from mmseg_ltmi.models.decode_heads.frequency_matching import FrequencyMatching

TAU = 0.5
CONTRAST_OF_PIXELS = dict(queue=dict(size=64), sampler=dict(num_samples=32))
PRESENCE = torch.tensor(PRIOR['image_counts'], dtype=torch.float64)
PRESENCE /= PRESENCE.sum()
HALF = dict(type='LTMILoss', class_prior=PRIOR)


def build(name='Mask2FormerHead', seed=0, **options):
    torch.manual_seed(seed)
    return MODELS.build(mask_segmentor(name, **options))


def seeded_loss(model, inputs, samples):
    torch.manual_seed(7)  # Mask2Former compares masks at random points
    return model.loss(inputs, samples)


@pytest.mark.parametrize('name', NAMES)
def test_trains_saves_loads_and_converts_back(name, tmp_path):
    model, stock = build(name).train(), build(name, ltmi=False)
    extra = set(model.state_dict()) - set(stock.state_dict())
    assert set(stock.state_dict()) <= set(model.state_dict())
    assert extra and all('.contrast.' in key or '.score_reader.' in key for key in extra)
    model.load_state_dict(stock.state_dict(), strict=True)
    assert (model.decode_head.score_reader.natural_shift == 0).all()

    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for step in range(2):
        losses = model.loss(*mask_batch(step))
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        assert all(value.isfinite().all() for value in losses.values())
    assert losses['decode.matched_queries'] == pytest.approx(2 / 6)
    assert model.decode_head.score_reader.natural_shift.abs().max() > 0.1  # training tells it
    assert losses['decode.queue_fill'] > 0 and losses['decode.loss_contrast'] > 0

    torch.save(model.state_dict(), tmp_path / 'ltmi.pth')
    again = build(name, seed=1).eval()
    again.load_state_dict(torch.load(tmp_path / 'ltmi.pth'))
    inputs, samples = mask_batch(9)
    with torch.no_grad():
        ours = model.eval().predict(inputs, copy.deepcopy(samples))
        theirs = again.predict(inputs, copy.deepcopy(samples))
        stock.load_state_dict(to_stock(model.state_dict()), strict=True)
        plain = stock.eval().predict(inputs, copy.deepcopy(samples))
    for a, b, c in zip(ours, theirs, plain, strict=True):
        assert torch.equal(a.seg_logits.data, b.seg_logits.data)
        torch.testing.assert_close(a.seg_logits.data.exp(), c.seg_logits.data)
        assert (a.pred_sem_seg.data == c.pred_sem_seg.data).float().mean() > 0.999


class Naive(nn.Module):
    """The adjusted loss of a stock head, written out in float64, and the contrastive term."""

    def __init__(self, model, ltmi, layers):
        super().__init__()
        self.model, self.layers = model, layers
        self.projector = copy.deepcopy(ltmi.decode_head.contrast.projector)
        log_prior = PRESENCE.log()
        shift = TAU * log_prior - sum(p * TAU * s for p, s in zip(PRESENCE, log_prior, strict=True))
        self.shift = torch.cat([shift, torch.zeros(1, dtype=torch.float64)])
        weight = PRESENCE**-0.5 / (PRESENCE * PRESENCE**-0.5).sum()
        head = self.model.decode_head
        head.class_weight = head.loss_cls.class_weight = [*weight.tolist(), 0.1]

    def forward(self, inputs, samples):
        head = self.model.decode_head
        features, labels = [], []
        hook = head.cls_embed.register_forward_hook(lambda _, x, out: features.append(x[0]))
        get_targets = head.get_targets

        def targets(*args):
            found = get_targets(*args)
            labels.append(torch.stack(found[0]))
            return found

        head.get_targets = targets
        objects, metas = head._seg_data_to_instance_data(samples)
        scores, masks = head(self.model.extract_feat(inputs), samples)
        hook.remove()
        loss = total(
            head.loss_by_feat([layer + self.shift for layer in scores], masks, objects, metas)
        )
        del head.get_targets
        features = features[0] if features[0].ndim == 4 else torch.stack(features)
        if self.layers == 'last':
            features, labels = features[-1:], labels[-1:]
        return loss + self.contrast(features, torch.stack(labels))

    def contrast(self, features, labels):
        """L_con: one key for each query, and CE of log p(z|c) + log p(c) by loops."""
        rows = [(z, int(y)) for z, y in zip(features.flatten(0, 2), labels.flatten(), strict=True)]
        queries = [(F.normalize(nn.Sequential.forward(self.projector, z), dim=0), y)
                   for z, y in rows if y < len(COUNTS)]  # fmt: skip
        keys = [(z.detach(), y) for z, y in queries]
        loss = 0
        for z, y in queries:
            joint = {}
            for c in {label for _, label in keys}:
                own = [((z @ k) / 0.1).exp() for k, label in keys if label == c]
                joint[c] = sum(own) / len(own) * PRESENCE[c]
            loss = loss - (joint[y] / sum(joint.values())).log()
        return 0.1 * loss / len(queries)  # the default loss_weight


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('layers', ['last', 'all'])
def test_loss_and_gradients_are_those_of_a_naive_reference(name, layers, monkeypatch):
    # mmdet draws points and compares masks in float32, whatever the model has.
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    monkeypatch.setattr(torch, 'rand', partial(torch.rand, dtype=torch.float64))
    contrast = {**CONTRAST, 'loss': dict(learn_temperature=False)}
    head = dict(loss_decode=HALF, contrast=contrast, contrast_layers=layers)
    ours = build(name, head=head).double().train()
    stock = build(name, ltmi=False).double().train()
    stock.load_state_dict(ours.state_dict(), strict=False)
    for model in (ours, stock):  # the same in both, and no random dropout
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
    inputs, samples = mask_batch(3)
    losses = seeded_loss(ours, inputs.double(), copy.deepcopy(samples))
    found = total(losses)
    found.backward()
    naive = Naive(stock, ours, layers)
    torch.manual_seed(7)
    wanted = naive(inputs.double(), copy.deepcopy(samples))
    wanted.backward()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    gradients = {f'decode_head.contrast.{k}': p.grad for k, p in naive.named_parameters()
                 if k.startswith('projector')}  # fmt: skip
    gradients |= {k: p.grad for k, p in stock.named_parameters()}
    compared = 0
    for key, parameter in ours.named_parameters():
        if parameter.grad is None or key.endswith('log_temperature_change'):
            continue
        compared += bool(parameter.grad.abs().max() > 1e-6)
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-4, atol=1e-5)
    assert compared > 50


@pytest.mark.parametrize('name', NAMES)
def test_pixels_of_the_map_are_contrasted_by_the_prior_of_pixels(name):
    """The term of the pixel decoder's map and the labels, which trains the pixel decoder."""
    head = dict(contrast_at='pixels', contrast=CONTRAST_OF_PIXELS)
    model = build(name, head=head).train()
    head, seen = model.decode_head, {}
    pixels = ClassPrior(COUNTS).log_probs()
    torch.testing.assert_close(head.contrast.log_prior, pixels)
    assert not torch.allclose(head.loss_decode.log_prior, pixels)  # that of presence
    naive = copy.deepcopy(head.contrast)
    head.pixel_decoder.register_forward_hook(lambda _, __, out: seen.update(map=out[0]))
    head.contrast.register_forward_pre_hook(lambda *_: seen.update(random=torch.get_rng_state()))
    inputs, samples = mask_batch(3)
    losses = model.loss(inputs, copy.deepcopy(samples))
    torch.set_rng_state(seen['random'])
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    wanted = naive(seen['map'], labels.masked_fill(labels == 255, -1))
    torch.testing.assert_close(losses['decode.loss_contrast'], wanted['loss_contrast'])
    assert wanted['loss_contrast'] > 0
    losses['decode.loss_contrast'].backward()
    assert head.pixel_decoder.mask_feature.weight.grad.abs().sum() > 0
    assert head.cls_embed.weight.grad is None
    later = build(name, head=dict(
        loss_decode=dict(type='LTMILoss'), contrast_at='pixels', contrast=CONTRAST_OF_PIXELS
    )).decode_head  # fmt: skip
    later.set_class_prior(ClassPrior(**PRIOR))
    torch.testing.assert_close(later.contrast.log_prior, pixels)
    assert not later.needs_class_prior


def test_the_shift_of_the_queries_by_hand():
    model = build(head=dict(loss_decode={**LOSS, 'tau': 2.0}))
    head = model.decode_head
    log_prior = (torch.tensor([10, 9, 4, 2]) / 25).log()
    shift = head.train_shift()
    torch.testing.assert_close(shift - shift[0], 2 * (log_prior - log_prior[0]), atol=1e-4, rtol=0)
    assert (shift * log_prior.exp()).sum().abs() < 1e-4
    torch.testing.assert_close(head.score_reader.natural_shift, shift)
    # tau_test and metrics take the prior of pixels.
    torch.testing.assert_close(
        head.log_prior, (torch.tensor(COUNTS) / 100.0).log(), atol=1e-4, rtol=0
    )
    weighted = build(head=dict(loss_decode={**LOSS, 'tau': 0.0, 'class_weight': [1, 1, 2, 4]}))
    mean = (10 + 9 + 8 + 8) / 25
    weights = [1 / mean, 1 / mean, 2 / mean, 4 / mean, 0.1]
    assert weighted.decode_head.class_weight == pytest.approx(weights, abs=1e-4)
    assert weighted.decode_head.loss_cls.class_weight == weighted.decode_head.class_weight


def test_weights_of_loss_cls_are_taken_off_in_reading():
    def shift(prior=None, **loss_cls):
        config = mask_segmentor(head=dict(loss_decode={**LOSS, 'tau': 0.0, 'class_weight': prior}))
        config.decode_head.loss_cls.update(loss_cls)
        return MODELS.build(config).decode_head.score_reader.natural_shift

    weight = torch.tensor([1.0, 1, 2, 4])
    wanted = -(weight / (10 + 9 + 8 + 8) * 25).log()
    for found in (
        shift(class_weight=weight.tolist()),  # of the classes alone, and with "no object"
        shift(class_weight=[1.0, 1, 2, 4, 0.5]),
        shift([1.0, 1, 1, 4], class_weight=[1.0, 1, 2, 1]),
        shift([1.0, 1, 2, 4], class_weight=[3.0] * 4),  # they hold no class dearer
    ):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    unlearned = shift(class_weight=[0.0, 1, 2, 4])  # as rare as the dearest class
    assert unlearned.isfinite().all() and unlearned[0] == unlearned.min()


def test_the_matching_sees_adjusted_scores(monkeypatch):
    model = build(head=dict(contrast=None)).train()
    head, seen = model.decode_head, []
    assign = head.assigner.assign
    monkeypatch.setattr(
        head.assigner, 'assign',
        lambda pred_instances, **kw: seen.append(pred_instances.scores)
        or assign(pred_instances=pred_instances, **kw),
    )  # fmt: skip
    inputs, samples = mask_batch()
    with torch.no_grad():
        model.loss(inputs, copy.deepcopy(samples))
        raw, _ = head(model.extract_feat(inputs), samples)
    adjusted = [layer[i] + F.pad(head.train_shift(), (0, 1)) for layer in raw for i in range(2)]
    assert len(seen) == len(adjusted) == 6  # the layer of the start and two more, two images
    for a, b in zip(seen, adjusted, strict=True):
        torch.testing.assert_close(a, b)


def test_an_object_of_a_rare_class_gets_several_queries():
    """ceil(max(1, scale sqrt(threshold / f))): f = 1, 0.9, 0.4, 0.2 of 10 images."""
    prior = ClassPrior(**PRIOR, num_images=10)
    matching = FrequencyMatching(None, threshold=0.8, scale=1.5, max_queries=3)
    matching.set_prior(prior)
    assert matching.queries.tolist() == [2, 2, 3, 3]  # 1.34, 1.41, 2.12, 3
    matching.max_queries = 9
    matching.set_prior(ClassPrior(COUNTS, image_counts=[10, 9, 4, 0]))
    assert matching.queries.tolist() == [2, 2, 3, 9]


@pytest.mark.parametrize('name', NAMES)
def test_frequency_matching_gives_them_their_objects_mask_and_label(name):
    model = build(name, head=dict(frequency_matching=dict(threshold=0.8, max_queries=2))).train()
    head, seen = model.decode_head, []
    assert head.assigner.queries.tolist() == [1, 1, 2, 2]
    inputs, samples = mask_batch(1)  # images of the classes 1, 2 and 2, 3
    get_targets = head.get_targets
    head.get_targets = lambda *args: seen.append(get_targets(*args)) or seen[-1]
    losses = model.loss(inputs, copy.deepcopy(samples))
    total(losses).backward()
    for labels, _, masks, *_ in seen:
        assert [sorted(of[of < 4].tolist()) for of in labels] == [[1, 2, 2], [2, 2, 3, 3]]
        for sample, of, mask in zip(samples, labels, masks, strict=True):
            wanted = [sample.gt_sem_seg.data[0] == c for c in of[of < 4]]
            assert torch.equal(mask.bool(), torch.stack(wanted))
    assert losses['decode.matched_queries'] == pytest.approx(7 / 12)
    # The prior is that of the matched queries; the natural reading has each object once.
    matched = (torch.tensor([10, 9, 8, 4]) / 31).log()
    for prior in (head.loss_decode.log_prior, head.contrast.log_prior):
        torch.testing.assert_close(prior, matched, atol=1e-4, rtol=0)
    once = matched - (matched * matched.exp()).sum() - torch.tensor([1, 1, 2, 2]).log()
    torch.testing.assert_close(head.score_reader.natural_shift, once, atol=1e-4, rtol=0)
    plain = build(name, head=dict(frequency_matching=dict(threshold=0.001)))
    assert plain.decode_head.assigner.queries.tolist() == [1, 1, 1, 1]
    # More queries are asked for than there are, and an image without any object.
    few = build(name, queries=3, head=dict(frequency_matching=dict(threshold=0.8))).train()
    samples[0].gt_sem_seg.data.fill_(255)
    losses = few.loss(inputs, samples)
    assert losses['decode.matched_queries'] == 0.5 and total(losses).isfinite()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('case', ['no object', 'more objects than queries'])
def test_images_of_too_few_and_too_many_objects(name, case):
    model = build(name, queries=2).train()
    inputs, samples = mask_batch()
    for sample in samples:
        labels = sample.gt_sem_seg.data
        labels.fill_(255) if case == 'no object' else labels.copy_(labels.new_tensor(
            [0, 1, 2, 3]).repeat_interleave(16).expand_as(labels))  # fmt: skip
    losses = model.loss(inputs, samples)
    total(losses).backward()
    assert all(value.isfinite().all() for value in losses.values())
    share = float(losses['decode.matched_queries'])
    assert share == (0 if case == 'no object' else 1)
    assert (losses['decode.loss_contrast'] == 0) == (case == 'no object')


def test_class_weights_of_c_and_of_c_plus_one_entries(caplog):
    caplog.set_level(logging.INFO)
    config = mask_segmentor(head=dict(loss_decode={**LOSS, 'tau': 0.0}))
    for given, wanted in (([2.0] * 4, [2, 2, 2, 2, 0.1]), ([1, 1, 1, 1, 0.3], [1, 1, 1, 1, 0.3])):
        config.decode_head.loss_cls.class_weight = given
        caplog.clear()
        assert MODELS.build(config).decode_head.class_weight == pytest.approx(wanted)
        assert ('has 4 entries; 0.1 for "no object" is added' in caplog.text) == (len(given) == 4)
    config.decode_head.loss_cls.class_weight = [1.0] * 3
    with pytest.raises(ValueError, match='has 3 entries: give 4 .*0.1 for "no object".*or 5'):
        MODELS.build(config)


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(contrast_layers='first'), "contrast_layers is 'first': use 'last' or 'all'"),
        (dict(contrast_at='map'), "contrast_at is 'map': use 'queries' or 'pixels'"),
        (
            dict(contrast=dict(sampler=dict(type=HardPixelSampler))),
            'no scores of pixels, which HardPixelSampler draws by',
        ),
        (dict(frequency_matching=dict(threshold=2)), 'frequency_matching has threshold=2'),
        (
            dict(frequency_matching=dict(), loss_decode={**LOSS, 'class_prior': COUNTS}),
            'has no image counts',
        ),
        (dict(shift_at='pixels'), "shift_at is 'pixels': use 'map' or 'queries'"),
        (dict(classifier=dict(type='cosine')), 'no conv_seg to replace'),
        (dict(region=dict()), 'leave region out'),
        (dict(loss_decode={**LOSS, 'type': 'BLVLoss'}), 'BLVLoss has no form for queries'),
        (dict(loss_decode=dict(type='LTMILoss', class_prior='online')), "is 'online'"),
        (dict(loss_decode={**LOSS, 'loss_weight': 2.0}), 'weight of the loss in loss_cls'),
        (dict(loss_decode=dict(type='CrossEntropyLoss')), 'give LTMILoss or LogitAdjustedLoss'),
        (dict(class_prior=[4, 3, 2, 1]), 'are different priors of one head'),
    ],
)
def test_what_is_refused(head, message):
    with pytest.raises(ValueError, match=message):
        build(head=head)


def test_a_label_that_is_no_class_names_the_image():
    inputs, samples = mask_batch()
    samples[1].gt_sem_seg.data[0, 40, 40] = 9
    samples[1].set_metainfo(dict(img_path='bad.png'))
    with pytest.raises(LabelOutOfRangeError, match=r'\[9\].*bad.png'):
        build().train().loss(inputs, samples)


def test_the_prior_of_presence_and_of_pixels_are_told_apart(caplog):
    caplog.set_level(logging.INFO)
    build()
    assert 'most to least frequent 5:1; 80:1 by pixels' in caplog.text
    caplog.clear()
    head = build(head=dict(loss_decode={**LOSS, 'class_prior': COUNTS})).decode_head
    assert 'no image counts: its pixel shares (most to least frequent 80:1)' in caplog.text
    assert '827:1 by pixels, 283:1 by images' in caplog.text
    torch.testing.assert_close(head.presence.log_prior, head.log_prior)
    assert ClassPrior(**PRIOR).presence().probs(0).tolist() == pytest.approx(
        [0.4, 0.36, 0.16, 0.08]
    )
    with pytest.raises(ValueError, match='has no image counts'):
        ClassPrior(COUNTS).presence()


@pytest.mark.parametrize('matching', [None, dict(threshold=0.8, max_queries=2)])
def test_a_prior_that_comes_later_is_one_of_presence(matching):
    head = dict(frequency_matching=matching)
    later = build(head=dict(loss_decode=dict(type='LogitAdjustedLoss'), **head))
    waiting = [m for m in later.modules() if getattr(m, 'needs_class_prior', False)]
    assert later.decode_head in waiting
    fill_in(waiting, ClassPrior(**PRIOR))
    assert not any(getattr(m, 'needs_class_prior', False) for m in later.modules())
    now = build(head=head).decode_head
    torch.testing.assert_close(later.decode_head.train_shift(), now.train_shift())
    torch.testing.assert_close(later.decode_head.contrast.log_prior, now.contrast.log_prior)
    assert torch.equal(later.decode_head.contrast.queue.room, now.contrast.queue.room)
    with pytest.raises(RuntimeError, match='nothing has filled it in'):
        build(head=dict(loss_decode=dict(type='LTMILoss'), contrast=None)).train().loss(
            *mask_batch()
        )


def test_matched_queries_are_drawn_once():
    labels = torch.tensor([[4, 1, 4], [0, 4, 3]])
    prior = torch.zeros(4)
    sample = MatchedQuerySampler(4)(labels, prior)
    assert sorted(zip(sample.pixel.tolist(), sample.labels.tolist(), strict=True))[1:] == [
        (1, 1), (3, 0), (5, 3)
    ] or sorted(sample.labels.tolist()) == [-1, 0, 1, 3]  # fmt: skip
    many = MatchedQuerySampler(9)(labels, prior)
    assert len(many.pixel) == 9 and sorted(many.labels.tolist()) == [-1] * 6 + [0, 1, 3]
    few = MatchedQuerySampler(2)(labels, prior)
    assert set(few.labels.tolist()) < {0, 1, 3} and few.labels.unique().numel() == 2
    with pytest.raises(ValueError, match='at least 1'):
        MatchedQuerySampler(0)


class Step(nn.Module):
    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.model = MODELS.build(any_segmentor(name)).train()
        # The images of a batch share no statistics.
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def forward(self, seed, number=2):
        return total(self.model.loss(*mask_batch(seed, number)))


def work(rank, world, folder):
    init_default_scope('mmseg')
    for name in FILES:
        step = Step(name)
        wrapped = DistributedDataParallel(
            step, broadcast_buffers=False, find_unused_parameters=True
        )
        optimizer = torch.optim.SGD(step.parameters(), 1e-2)
        torch.manual_seed(rank)
        for i in range(2):
            optimizer.zero_grad()
            wrapped(10 * i + rank).backward()
            optimizer.step()
        torch.save(step.model.decode_head.state_dict(), f'{folder}/{name}_{rank}.pth')


def test_two_ranks_agree(tmp_path):
    needs_mmdet()
    run_ranks(work, 2, tmp_path, seconds=300)
    for name in FILES:
        start = Step(name).model.decode_head.state_dict()
        first, second = (torch.load(tmp_path / f'{name}_{rank}.pth') for rank in range(2))
        moved = 0
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=0, atol=0, equal_nan=True)
            moved += not torch.equal(value, start[key])
        assert moved > len(first) / 2, name
        ids = first['contrast.queue.ids']
        number = (ids >= 0).sum()
        assert number == ids[ids >= 0].unique().numel()
        if name in NAMES:  # two classes an image, two images on each rank: all are stored
            assert number == 8
            assert set(first['contrast.queue.labels'].tolist()) == {-1, 0, 1, 2, 3}
        else:
            assert number > 8


def test_the_error_where_mmdet_or_a_part_of_it_is_missing(monkeypatch):
    config = mask_segmentor()
    monkeypatch.setitem(sys.modules, 'mmdet.models', None)
    with pytest.raises(ImportError, match=r'needs mmdet 3.x.*mmseg_ltmi\[mask\]'):
        MODELS.build(config)


def test_a_head_without_its_base_class_says_so(monkeypatch):
    from mmengine.model import BaseModule

    from mmseg_ltmi.compat import require_mmdet

    needs_mmdet()
    with pytest.raises(ImportError, match='start Python again'):
        require_mmdet(type('LTMIMask2FormerHead', (BaseModule,), {}))


def test_an_operating_point_of_another_model_is_refused():
    model = build(type='LTMIEncoderDecoder')
    point = OperatingPoint(
        'tau', tuple('abcd'), tuple((torch.tensor(COUNTS) / 100.0).log().tolist()), tau=0.5,
        weights='0' * 16,
    )  # fmt: skip
    options = dict(type='LTMIEncoderDecoder', operating_point=point.to_dict())
    model = build(**options).eval()
    with pytest.raises(ValueError, match='was chosen for a network with fingerprint'):
        model.predict(*mask_batch())


def predictions(model, **reading):
    model = copy.deepcopy(model).eval()
    if 'point' in reading:
        model.reader.set_point(reading['point'])
    model.decode_head.tau_test = reading.get('tau', 0.0)
    model.decode_head.shift_at = reading.get('shift_at', 'map')
    inputs, samples = mask_batch(5)
    for sample in samples:
        sample.set_metainfo(dict(ori_shape=(96, 96)))
    with torch.no_grad():
        return torch.stack([s.seg_logits.data for s in model.predict(inputs, samples)])


def test_the_map_and_the_queries_are_read_by_hand():
    model = build(type='LTMIEncoderDecoder', head=dict(loss_decode=HALF)).eval()
    head, log_prior = model.decode_head, (torch.tensor(COUNTS) / 100.0).log()
    inputs, samples = mask_batch(5)
    with torch.no_grad():
        scores, masks = head(model.extract_feat(inputs), samples)
    masks = F.interpolate(masks[-1], size=(64, 64), mode='bilinear').sigmoid()
    natural = scores[-1] + F.pad(head.score_reader.natural_shift, (0, 1))

    def summed(logits):
        weights = logits.softmax(-1)[..., :-1]
        maps = sum(weights[:, q, :, None, None] * masks[:, q, None] for q in range(6))
        return F.interpolate(maps, size=(96, 96), mode='bilinear').log()

    shift = 0.8 * log_prior
    torch.testing.assert_close(predictions(model), summed(natural), rtol=1e-4, atol=1e-4)
    cheap = summed(natural) - shift[:, None, None]
    exact = summed(natural - F.pad(shift, (0, 1)))
    torch.testing.assert_close(predictions(model, tau=0.8), cheap, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(
        predictions(model, tau=0.8, shift_at='queries'), exact, rtol=1e-4, atol=1e-3
    )
    assert (cheap.log_softmax(1) - exact.log_softmax(1)).abs().max() > 1e-2


def test_an_operating_point_and_the_iou_rule():
    model = build(type='LTMIEncoderDecoder').eval()
    common = tuple('abcd'), tuple(model.decode_head.log_prior.tolist())
    tau = OperatingPoint('tau', *common, tau=0.8)
    torch.testing.assert_close(predictions(model, point=tau), predictions(model, tau=0.8))
    # It was chosen on the map, so it acts there.
    at_queries = predictions(model, point=tau, shift_at='queries')
    torch.testing.assert_close(at_queries, predictions(model, point=tau))
    rule = OperatingPoint('iou', *common, iou=(0.9, 0.0, 0.0, 0.0), union=(0.9, 0.1, 0.1, 0.1))
    model.reader.set_point(rule)
    with torch.no_grad():
        sample = model.predict(*mask_batch(5))[0]
    share = sample.seg_logits.data.exp()
    share = share / share.sum(0)
    iou, union = torch.tensor(rule.iou)[:, None, None], torch.tensor(rule.union)[:, None, None]
    wanted = (share * (1 + iou) - iou) / union
    assert torch.equal(sample.pred_sem_seg.data[0], wanted.argmax(0))
    assert not torch.equal(wanted.argmax(0), share.argmax(0))


def test_a_stock_head_is_read_too():
    stock = build(ltmi=False, type='LTMIEncoderDecoder').eval()
    plain = build(ltmi=False).eval()
    inputs, samples = mask_batch(5)
    with torch.no_grad():
        ours = stock.predict(inputs, copy.deepcopy(samples))[0]
        theirs = plain.predict(inputs, copy.deepcopy(samples))[0]
    torch.testing.assert_close(ours.seg_logits.data.exp(), theirs.seg_logits.data)
    assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
    weighted = build(ltmi=False, type='LTMIEncoderDecoder', head=dict(loss_cls=dict(
        type='mmdet.CrossEntropyLoss', use_sigmoid=False, class_weight=[1.0, 1.0, 2.0, 4.0, 0.1]
    )))  # fmt: skip
    wanted = -torch.tensor([1.0, 1.0, 2.0, 4.0]).log()
    torch.testing.assert_close(weighted.reader.natural_shift, wanted)


def run_config(folder, steps, name):
    cfg = demo_run(folder, steps)
    cfg.model = any_segmentor(name, 13, dict(type='LTMILoss'))
    cfg.model.data_preprocessor.size = (32, 32)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.custom_hooks += [dict(type='StepSeedHook')]
    return cfg


@pytest.mark.parametrize('name', FILES)
def test_a_run_resumes_bit_for_bit_with_the_counted_prior(name, tmp_path):
    whole = Runner.from_cfg(run_config(tmp_path / 'whole', 3, name))
    whole.train()
    prior = ClassPrior.load(tmp_path / 'whole/class_prior.json')
    head = whole.model.decode_head
    if name in NAMES:
        torch.testing.assert_close(head.presence.log_prior, prior.presence().log_probs())
    else:
        torch.testing.assert_close(head.log_prior, prior.log_probs())
    again = run_config(tmp_path / 'again', 3, name)
    again.load_from, again.resume = str(tmp_path / 'whole/iter_2.pth'), True
    torch.manual_seed(99)
    resumed = Runner.from_cfg(again)
    resumed.train()
    assert resumed.iter == whole.iter == 3
    torch.testing.assert_close(
        resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize('ltmi', [False, True], ids=['stock', 'LTMI'])
def test_a_per_pixel_auxiliary_head_beside_a_mask_classifier(ltmi):
    auxiliary = dict(
        type='LTMIFCNHead', in_channels=256, in_index=2, channels=8, num_convs=1, num_classes=4,
        concat_input=False, norm_cfg=dict(type='BN'), contrast=CONTRAST_OF_PIXELS,
        loss_decode=dict(type='LTMILoss', class_prior=PRIOR, loss_weight=0.4),
    )  # fmt: skip
    model = build(ltmi=ltmi, auxiliary_head=auxiliary).train()
    losses = model.loss(*mask_batch())
    total(losses).backward()
    assert losses['aux.loss_ltmi'] > 0 and losses['aux.loss_contrast'] > 0
    assert losses['decode.loss_cls'] > 0 and model.backbone.conv1.weight.grad.abs().sum() > 0


def test_deformable_attention_without_compiled_ops_is_torchs():
    if not isinstance(sys.modules.get('mmcv._ext'), _MissingOps):
        pytest.skip('full mmcv has the compiled op')
    attention = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
    torch_deformable_attention()
    value, shapes = torch.rand(1, 20, 2, 4), torch.tensor([[4, 4], [2, 2]])
    places, weights = torch.rand(1, 3, 2, 2, 4, 2), torch.rand(1, 3, 2, 2, 4)
    start = torch.tensor([0, 16])
    apply = attention.MultiScaleDeformableAttnFunction.apply
    found = apply(value, shapes, start, places, weights, 64)
    wanted = attention.multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    torch.testing.assert_close(found, wanted)
    assert found.shape == (1, 3, 8)
