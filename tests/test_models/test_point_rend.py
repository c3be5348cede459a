"""PointRend, whose last head replaces some of the scores of the one before."""

import pytest
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmseg.registry import MODELS
from own_data import config, write_data
from tiny import COUNTS, LOSS, batch, segmentor

CE = dict(type='CrossEntropyLoss')


def cascade(coarse, point, kind='LTMICascadeEncoderDecoder', ltmi=(True, True)):
    model = segmentor(ltmi=False, type=kind, num_stages=2)
    names = 'LTMI' * ltmi[0] + 'FCNHead', 'LTMI' * ltmi[1] + 'PointHead'
    model['decode_head'] = [
        {**model['decode_head'], 'type': names[0], 'loss_decode': coarse},
        dict(
            type=names[1], in_channels=[128], in_index=[1], channels=8, num_fcs=1, num_classes=4,
            dropout_ratio=-1, align_corners=False, loss_decode=point,
        ),
    ]  # fmt: skip
    points = dict(num_points=32, oversample_ratio=3, importance_sample_ratio=0.75)
    subdivision = dict(subdivision_steps=1, subdivision_num_points=32, scale_factor=2)
    model['train_cfg'] = ConfigDict(points)
    model['test_cfg'] = ConfigDict(mode='whole', **subdivision)
    return model


def predict(model):
    inputs, samples = batch(ori_shape=(64, 64), padding_size=[0] * 4)
    return model.eval().predict(inputs, samples)


@pytest.mark.parametrize('ltmi', [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize('coarse, point', [(CE, LOSS), (LOSS, CE), (LOSS, {**LOSS, 'tau': 0.5})])
def test_two_shifts_are_refused_before_they_are_mixed(coarse, point, ltmi):
    model = MODELS.build(cascade(coarse, point, ltmi=ltmi))
    message = r'FCNHead \(.*PointHead \(.*shift the scores of classes apart.*the same loss_decode'
    with pytest.raises(ValueError, match=message):
        model.train().loss(*batch())
    with pytest.raises(ValueError, match=message):
        predict(model)


@pytest.mark.parametrize('point', [LOSS, {**LOSS, 'class_weight': [2.0] * 4}])
def test_one_shift_is_read(point):
    model = MODELS.build(cascade(LOSS, point)).train()
    model.loss(*batch())
    predict(model)


def test_a_prior_that_comes_later_is_compared_when_it_is_there():
    model = MODELS.build(cascade({**LOSS, 'class_prior': None}, {**LOSS, 'class_prior': None}))
    predict(model)
    model.decode_head[0].set_class_prior(COUNTS)
    model.decode_head[1].set_class_prior(COUNTS[::-1])
    with pytest.raises(ValueError, match='shift the scores of classes apart'):
        predict(model)
    online = {**LOSS, 'class_prior': 'online'}
    with pytest.raises(ValueError, match='LTMIFCNHead has an online prior'):
        MODELS.build(cascade(online, online)).train().loss(*batch())


def test_a_run_refuses_it_in_a_plain_cascade(tmp_path, monkeypatch):
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    cfg = config(COUNTS)
    cfg.model = cascade(CE, LOSS, 'CascadeEncoderDecoder', (False, True))
    with pytest.raises(ValueError, match='FCNHead .*LTMIPointHead .*shift the scores'):
        Runner.from_cfg(cfg).train()
