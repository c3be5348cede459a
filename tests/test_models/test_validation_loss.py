"""A loss that is computed beside training leaves the model as it is."""

import contextlib

import pytest
import torch
from mmseg.registry import MODELS
from tiny import CONTRAST, batch, segmentor, total

from mmseg_ltmi.core import PixelContrast
from mmseg_ltmi.core.posterior import ClassMemory, OperatingPoint
from mmseg_ltmi.core.region_rebalance import RegionRebalance

ONLINE = dict(type='online', decay=0.5)
OWN = dict(type='LogitAdjustedLoss', class_prior=ONLINE)
PARTS = {**CONTRAST, 'class_prior': None}
POINT = OperatingPoint(
    'tau', tuple('abcd'), (-1.0, -1.0, -2.0, -3.0), tau=0.3, memory_weight=0.5, memory='x'
)
MODES = {
    'eval': (False, torch.no_grad),
    'eval, gradients on': (False, contextlib.nullcontext),
    'train mode, no gradients': (True, torch.no_grad),
}
TERMS = dict(loss_decode=OWN, contrast={**PARTS, 'region_keys': True}, region=dict())
PIXELS = dict(loss_decode=dict(type='CrossEntropyLoss'), contrast=None, class_prior=ONLINE)
EMA = dict(type='DistilledEncoderDecoder', teacher=dict(type='EMA', momentum=0.5), alpha=1)
MODELS_BY_NAME = {
    'online prior': segmentor(head=TERMS),
    'counted by the contrast': segmentor(head={**PIXELS, 'contrast': PARTS}),
    'counted by the region term': segmentor(head={**PIXELS, 'region': dict()}),
    'EMA teacher': segmentor(**EMA),
    'point': segmentor(type='LTMIEncoderDecoder'),
    'point of a stock head': segmentor(type='LTMIEncoderDecoder', ltmi=False),
}


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', MODELS_BY_NAME)
def test_a_validation_loss_changes_nothing(name, mode):
    torch.manual_seed(0)
    model = MODELS.build(MODELS_BY_NAME[name]).train()
    total(model.loss(*batch(0))).backward()
    if 'point' in name:
        memory = ClassMemory(torch.randn(40, 8), torch.arange(40) % 4, 4, 0.1)
        model.reader.set_point(POINT, memory)
        model._point = POINT
    training, gradients = MODES[mode]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    # BatchNorm's follow train mode, as everywhere in torch.
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    model.train(training)
    with gradients():
        assert total(model.loss(*batch(1))).isfinite()
    after = model.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        if not key.endswith(statistics):
            assert torch.equal(value.nan_to_num(7), after[key].nan_to_num(7)), key
    if 'point' in name:
        assert model.reader.has_point and model._point is POINT
        model.train()
        total(model.loss(*batch(1))).backward()
        assert not model.reader.has_point and model._point is None


def test_the_contrast_of_a_validation_is_of_the_queue_as_it_stands():
    torch.manual_seed(0)
    contrast = PixelContrast(8, 4, [80, 15, 4, 1], queue=dict(size=64), loss=dict(own_key=False))
    features, labels = torch.randn(2, 8, 8, 8), torch.randint(0, 4, (2, 8, 8))
    labels[0, 0, :4] = torch.arange(4)
    contrast.eval()
    empty = contrast(features, labels)
    assert empty['loss_contrast'].isfinite() and empty['queue_fill'] == 0
    contrast.train()
    contrast(features, labels)
    keys, key_labels, _ = contrast.queue.read()
    contrast.eval()

    torch.manual_seed(1)
    found = contrast(features, labels)['loss_contrast']
    torch.manual_seed(1)
    sample = contrast.sampler(labels, contrast.log_prior, None)
    query = contrast.projector(features.movedim(1, -1).flatten(0, 2)[sample.pixel])
    nobody = dict(query_ids=torch.arange(len(query)), key_ids=torch.full_like(key_labels, -1))
    expected = contrast.loss(query, sample.labels, keys, key_labels, sample.log_prior, **nobody)
    torch.testing.assert_close(found, expected)


def test_the_region_terms_own_counts():
    term = RegionRebalance(8, 4, 'online')
    labels = torch.randint(0, 4, (2, 8, 8))
    term(torch.randn(2, 8, 8, 8), labels)
    pixels, regions = term.prior.online_counts.clone(), term.presence.online_counts.clone()
    term.eval()
    term(torch.randn(2, 8, 8, 8), labels)
    with torch.no_grad():
        term.train()(torch.randn(2, 8, 8, 8), labels)
    assert torch.equal(term.prior.online_counts, pixels) and pixels.sum() == 128
    assert torch.equal(term.presence.online_counts, regions)
