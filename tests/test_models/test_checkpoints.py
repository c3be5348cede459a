"""What checkpoints mean: of earlier versions, of stock heads, of other classes and priors."""

import copy
import math
import pickle

import pytest
import torch
from mmengine.runner import load_state_dict
from mmseg.registry import MODELS
from tiny import COUNTS, batch, segmentor, total

from mmseg_ltmi.core import OperatingPoint
from mmseg_ltmi.models import LTMIFCNHead

LOADERS = pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
LOG_PRIOR = torch.tensor(COUNTS).float().div(100).log()
META = [dict(img_shape=(64, 64), ori_shape=(64, 64), padding_size=[0] * 4)] * 2
NEW = {
    'decode_head.score_reader.natural_shift': 'decode_head.inference_prior.natural_shift',
    'decode_head.score_reader.log_prior': 'decode_head.inference_prior.log_prior',
    'decode_head.score_reader.point_shift': 'decision.shift',
    'decode_head.score_reader.iou': 'decision.iou',
    'decode_head.score_reader.union': 'decision.union',
    'decode_head.loss_decode.prior.online_counts': 'decode_head.loss_decode.online_counts',
}


def trained(**options):
    torch.manual_seed(0)
    model = MODELS.build(segmentor(type='LTMIEncoderDecoder', **options)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for seed in range(2):
        optimizer.zero_grad()
        total(model.loss(*batch(seed))).backward()
        optimizer.step()
    return model


def as_before(model):
    """The state dict as earlier versions wrote it."""
    state = dict(model.state_dict())
    contrast = 'decode_head.contrast.loss.'
    log_t = state.pop(f'{contrast}initial_log_temperature')
    state[f'{contrast}log_temperature'] = log_t + state.pop(f'{contrast}log_temperature_change')
    for new, old in NEW.items():
        if new in state:
            state[old] = state.pop(new)
    return state


@LOADERS
@pytest.mark.parametrize('prior', [COUNTS, 'online'])
@pytest.mark.parametrize('rule', ['tau', 'iou'])
def test_a_checkpoint_of_before_means_the_same(load, prior, rule):
    options = dict(head=dict(loss_decode=dict(type='LTMILoss', class_prior=prior), contrast=dict()))
    model = trained(**options)
    model.reader.set_point(
        OperatingPoint(
            rule, tuple('abcd'), tuple(LOG_PRIOR.tolist()), 0.7, (0.9, 0.5, 0.3, 0.1), (9, 3, 2, 1)
        )
    )
    again = MODELS.build(segmentor(type='LTMIEncoderDecoder', **options))
    load(again, as_before(model), strict=True)
    torch.testing.assert_close(
        again.state_dict(), model.state_dict(), rtol=0, atol=1e-6, equal_nan=True
    )
    assert again.reader.has_iou_rule == (rule == 'iou') and again.reader.has_point
    assert again.decode_head.contrast.loss.temperature != pytest.approx(0.1, abs=1e-6)


@LOADERS
def test_a_stock_checkpoint_is_read_as_the_natural_posterior(load):
    stock = MODELS.build(
        segmentor(ltmi=False, head=dict(loss_decode=dict(type='CrossEntropyLoss')))
    )
    ours = MODELS.build(segmentor())
    load(ours, stock.state_dict(), strict=True)
    inputs, samples = batch()
    with torch.no_grad():
        expected = stock.eval().encode_decode(inputs, META)
        torch.testing.assert_close(ours.eval().encode_decode(inputs, META), expected)
    ours.train().loss(inputs, samples)  # trained on, its scores are what the loss makes of them
    torch.testing.assert_close(
        ours.decode_head.score_reader.natural_shift, LOG_PRIOR, atol=1e-3, rtol=0
    )


def test_a_stock_head_keeps_its_shift_in_the_checkpoint_of_its_segmentor():
    # The prior was counted before training, and testing does not count it again.
    loss = dict(type='LogitAdjustedLoss', class_prior=COUNTS)
    model = trained(ltmi=False, head=dict(loss_decode=loss))
    tested = MODELS.build(
        segmentor(
            ltmi=False,
            type='LTMIEncoderDecoder',
            head=dict(loss_decode={**loss, 'class_prior': None}),
        )
    )
    tested.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(tested.reader.natural_shift, LOG_PRIOR, atol=1e-3, rtol=0)


def test_a_class_of_weight_zero_leaves_the_scores_finite():
    loss = dict(type='CrossEntropyLoss', class_weight=[0.0, 1.0, 1.0, 4.0])
    for options in (dict(ltmi=False), dict(head=dict(contrast=None))):
        head = dict(options.pop('head', {}), loss_decode=loss)
        model = MODELS.build(segmentor(type='LTMIEncoderDecoder', head=head, **options))
        shift = model.reader.natural_shift
        torch.testing.assert_close(shift, torch.tensor([-math.log(4), 0, 0, -math.log(4)]))


def queue_after_loading(source, target):
    """The keys of the target that are filled after it has loaded the source's checkpoint."""
    state = source.state_dict()
    load_state_dict(target, state, strict=False)
    return target.decode_head.contrast.queue


def test_keys_of_other_classes_or_another_prior_do_not_stay():
    source = trained()
    assert source.decode_head.contrast.queue.fill() > 0
    same = MODELS.build(segmentor())
    assert queue_after_loading(source, same).fill() == source.decode_head.contrast.queue.fill()
    loss = dict(type='LogitAdjustedLoss', class_prior=[5, 4, 3, 2, 1])
    five = segmentor(head=dict(num_classes=5, loss_decode=loss, contrast=dict(queue=dict(size=64))))
    five['decode_head']['contrast']['projector'] = dict(out_channels=16)
    queue = queue_after_loading(source, MODELS.build(five))
    assert queue.fill() == 0 and len(queue.room) == 5 and queue.room.sum() == 64
    other = dict(class_prior=[1, 4, 15, 80])
    other = segmentor(
        head=dict(
            loss_decode=dict(type='LogitAdjustedLoss', **other),
            contrast=dict(queue=dict(size=64), projector=dict(out_channels=16)),
        )
    )
    queue = queue_after_loading(source, MODELS.build(other))
    assert queue.fill() == 0 and queue.room[3] > queue.room[0]


def test_ignored_pixels_are_neither_keys_nor_counted_nor_distilled():
    torch.manual_seed(0)
    online = dict(type='LogitAdjustedLoss', class_prior='online')
    model = MODELS.build(
        segmentor(
            type='DistilledEncoderDecoder', teacher=dict(type='EMA', momentum=0.5), alpha=1.0,
            head=dict(ignore_index=0, loss_decode=online, contrast=dict()),
        )
    )  # fmt: skip
    inputs, samples = batch()
    for sample in samples:
        sample.gt_sem_seg.data[sample.gt_sem_seg.data == 255] = 0
    model.train().loss(inputs, samples)
    assert model.decode_head.loss_decode.online_counts[0] == 0
    assert not (model.decode_head.contrast.queue.labels == 0).any()
    for parameter in model.teacher.network.parameters():
        parameter.data += 0.1
    for sample in samples:
        sample.gt_sem_seg.data.zero_()
    assert model.loss(inputs, samples)['loss_distill'] == 0


def test_heads_pickle_and_are_classes_of_the_package():
    model = trained()
    assert type(model.decode_head) is LTMIFCNHead
    again = pickle.loads(pickle.dumps(model))
    assert copy.deepcopy(again).reader is not again.reader
    again.load_state_dict(as_before(model))  # its hooks are its own
    assert torch.equal(again.reader.natural_shift, model.reader.natural_shift)


def test_weight_decay_pulls_the_temperature_to_where_it_started():
    loss = MODELS.build(dict(type='GMLLoss', num_classes=3, temperature=0.05))
    loss.load_state_dict({'log_temperature': torch.tensor(math.log(0.2))})
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.1, weight_decay=1.0)
    temperatures = []
    for _ in range(200):
        loss.log_temperature_change.grad = torch.zeros(1)
        optimizer.step()
        temperatures.append(float(loss.temperature))
    assert all(a >= b for a, b in zip(temperatures, temperatures[1:], strict=False))
    assert temperatures[-1] == pytest.approx(0.05, rel=1e-3)


POINT = OperatingPoint('tau', tuple('abcd'), tuple(LOG_PRIOR.tolist()), 0.7)


@LOADERS
def test_a_stock_checkpoint_under_an_operating_point_is_natural_too(load):
    stock = MODELS.build(
        segmentor(ltmi=False, head=dict(loss_decode=dict(type='CrossEntropyLoss')))
    )
    config = segmentor(type='LTMIEncoderDecoder', operating_point=POINT.to_dict())
    model = MODELS.build(config)
    load(model, stock.state_dict(), strict=True)
    assert (model.reader.natural_shift == 0).all() and model.reader.has_point


@LOADERS
@pytest.mark.parametrize('ltmi', [True, False])
def test_a_reader_moves_between_the_segmentor_and_its_head(load, ltmi):
    source = trained(ltmi=ltmi)
    target = segmentor(type='LTMIEncoderDecoder', ltmi=not ltmi)
    target['decode_head']['loss_decode'] = dict(type='LogitAdjustedLoss')
    target = MODELS.build(target)
    load(target, source.state_dict(), strict=False)
    torch.testing.assert_close(target.reader.natural_shift, LOG_PRIOR, atol=1e-3, rtol=0)


def test_a_reader_moves_beside_an_auxiliary_head_that_has_its_own():
    auxiliary = segmentor(index=0, head=dict(contrast=None))['decode_head']
    options = dict(type='LTMIEncoderDecoder', auxiliary_head=auxiliary)
    source = MODELS.build(segmentor(ltmi=False, **options))
    source._update_own_reader()
    target = segmentor(**options)
    target['decode_head']['loss_decode'] = dict(type='LogitAdjustedLoss')
    target = MODELS.build(target)
    target.load_state_dict(source.state_dict(), strict=False)
    torch.testing.assert_close(target.reader.natural_shift, LOG_PRIOR, atol=1e-3, rtol=0)


def test_a_coarse_head_does_not_say_how_the_last_one_is_read():
    coarse = segmentor(head=dict(contrast=None))['decode_head']
    last = dict(
        type='OCRHead', in_channels=128, in_index=1, channels=8, ocr_channels=8, num_classes=4,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss'),
    )  # fmt: skip
    config = segmentor(decode_head=[coarse, last], num_stages=2)
    source = MODELS.build(dict(config, type='CascadeEncoderDecoder'))
    target = MODELS.build(dict(config, type='LTMICascadeEncoderDecoder'))
    target.load_state_dict(source.state_dict(), strict=False)
    assert (target.reader.natural_shift == 0).all()
    shift = target.decode_head[0].score_reader.natural_shift
    torch.testing.assert_close(shift, LOG_PRIOR, atol=1e-3, rtol=0)


def test_an_iou_rule_without_a_segmentor_that_decides_by_it_is_an_error():
    model = trained()
    rule = OperatingPoint(
        'iou', tuple('abcd'), tuple(LOG_PRIOR.tolist()), 0.0, (0.9, 0.5, 0.3, 0.1), (9, 3, 2, 1)
    )
    model.reader.set_point(rule)
    plain = MODELS.build(segmentor())
    plain.load_state_dict(model.state_dict(), strict=True)
    with pytest.raises(ValueError, match='make model.type LTMIEncoderDecoder'):
        plain.eval().encode_decode(batch()[0], META)


def test_a_prior_that_comes_after_the_build_is_read_by_a_stock_head():
    config = segmentor(ltmi=False, type='LTMIEncoderDecoder')
    config['decode_head']['loss_decode'] = dict(type='LogitAdjustedLoss')
    model = MODELS.build(config).eval()
    model.decode_head.loss_decode.set_class_prior(COUNTS)
    scores = torch.zeros(1, 4, 8, 8)
    found = model.postprocess_result(scores)[0].seg_logits.data[:, 0, 0]
    torch.testing.assert_close(found, LOG_PRIOR, atol=1e-3, rtol=0)
