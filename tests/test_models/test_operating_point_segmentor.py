from dataclasses import replace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis.config_changes import with_operating_point
from mmseg_ltmi.core.posterior import ClassMemory, OperatingPoint
from mmseg_ltmi.evaluation import LogitAdjustmentSweep
from mmseg_ltmi.models.segmentors import ltmi_segmentors, network_fingerprint

COUNTS = (90, 8, 2)
PRIOR = torch.tensor(COUNTS).div(100)
COMMON: dict = dict(classes=('a', 'b', 'c'), log_prior=tuple(PRIOR.log().tolist()))
TAU = OperatingPoint('tau', tau=0.7, **COMMON)
RULE = OperatingPoint('iou', iou=(0.9, 0.3, 0.1), union=(0.9, 0.1, 0.03), **COMMON)


def model(point=None, ltmi=True, test_cfg=None, loss=None, **kwargs):
    torch.manual_seed(0)
    head = dict(type='LTMIFCNHead' if ltmi else 'FCNHead', in_channels=128, in_index=1, channels=8)
    head |= dict(num_classes=3, num_convs=1, norm_cfg=dict(type='BN'), dropout_ratio=0)
    head['loss_decode'] = loss or dict(type='LogitAdjustedLoss', class_prior=COUNTS)
    built = MODELS.build(
        dict(
            type='LTMIEncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor'),
            backbone=dict(type='ResNetV1c', depth=18, norm_cfg=dict(type='BN'), base_channels=64),
            decode_head={**head, **kwargs},
            train_cfg=dict(),
            test_cfg=ConfigDict(test_cfg or dict(mode='whole')),
            operating_point=point.to_dict() if isinstance(point, OperatingPoint) else point,
        )
    )
    # Scores that differ from pixel to pixel.
    torch.nn.init.normal_(built.decode_head.conv_seg.weight, std=20)
    return built.eval()


def predict(net, image, ori_shape=(40, 56)):
    meta = dict(img_shape=tuple(image.shape[2:]), ori_shape=ori_shape, padding_size=[0] * 4)
    with torch.no_grad():
        return net.predict(image, [SegDataSample(metainfo=meta)])[0]


IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(5)) * 3


@pytest.mark.parametrize('point', [TAU, RULE], ids=['tau', 'iou'])
@pytest.mark.parametrize('ltmi', [True, False], ids=['ltmi', 'stock'])
@pytest.mark.parametrize(
    'test_cfg',
    [dict(mode='whole'), dict(mode='slide', crop_size=(64, 64), stride=(48, 32))],
    ids=['whole', 'slide'],
)
def test_the_decision_is_that_of_the_point_on_the_natural_posterior(point, ltmi, test_cfg):
    natural = predict(model(ltmi=ltmi, test_cfg=test_cfg), IMAGE)
    found = predict(model(point, ltmi, test_cfg), IMAGE)
    expected = point.scores(natural.seg_logits.data).argmax(0, keepdim=True)
    agree = (found.pred_sem_seg.data == expected).float().mean()
    assert agree > 0.999  # rounding at ties
    assert (expected != natural.seg_logits.data.argmax(0)).any()


def test_one_window_is_the_whole_image():
    slide = dict(mode='slide', crop_size=(64, 96), stride=(64, 96))
    whole, windows = (predict(model(RULE, test_cfg=cfg), IMAGE) for cfg in (None, slide))
    assert (whole.pred_sem_seg.data == windows.pred_sem_seg.data).all()


def test_stock_head_with_class_weights_reads_its_natural_posterior():
    weights = [1.0, 4.0, 20.0]
    loss = dict(type='CrossEntropyLoss', use_sigmoid=False, class_weight=weights)
    net = model(ltmi=False, loss=loss)
    with torch.no_grad():
        raw = net.encode_decode(IMAGE, [dict(img_shape=(64, 96))])
    found = predict(net, IMAGE, (64, 96)).seg_logits.data
    expected = raw[0] - torch.tensor(weights).log()[:, None, None]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('point', [TAU, RULE], ids=['tau', 'iou'])
def test_a_checkpoint_carries_it_and_training_drops_it(point):
    chosen = model(point)
    plain = model()
    plain.load_state_dict(chosen.state_dict(), strict=True)
    one, other = (predict(net, IMAGE).pred_sem_seg.data for net in (chosen, plain))
    assert (one == other).all()
    # A checkpoint without it loads too, and what the config names stands.
    stock = {k: v for k, v in plain.state_dict().items() if 'score_reader.' not in k}
    again = model(point)
    again.load_state_dict(model().state_dict(), strict=True)
    model().load_state_dict(stock, strict=True)
    assert (predict(again, IMAGE).pred_sem_seg.data == one).all()

    sample = SegDataSample(metainfo=dict(img_shape=(64, 96)))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, 64, 96, dtype=torch.int64))
    plain.train()
    plain.loss(IMAGE.repeat(2, 1, 1, 1), [sample, sample])
    assert not plain.reader.has_point


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('ltmi', [True, False], ids=['ltmi', 'stock'])
def test_other_dtypes_decide_the_same(ltmi, dtype):
    # Neither the union of the last class nor a ratio of it is a number of float16.
    tiny = replace(RULE, iou=(0.9, 0.3, 0.0), union=(0.9, 0.1, 1e-8))
    for point in (None, TAU, tiny):
        net = model(point, ltmi)
        expected = predict(net, IMAGE).pred_sem_seg.data
        found = predict(net.to(dtype), IMAGE.to(dtype)).pred_sem_seg.data
        assert len(expected.unique()) > 1
        assert (found == expected).float().mean() > 0.97  # rounding at ties
        net.to(torch.float32)
        assert (predict(net, IMAGE).pred_sem_seg.data == expected).float().mean() > 0.97


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_cannot_tell_whose_point_it_is(dtype, monkeypatch):
    said = []
    monkeypatch.setattr(ltmi_segmentors, 'print_log', lambda text, *_: said.append(text))
    of_this = replace(TAU, weights=network_fingerprint(model()))
    expected = predict(model(of_this), IMAGE).pred_sem_seg.data
    found = predict(model(of_this).to(dtype), IMAGE.to(dtype)).pred_sem_seg.data
    assert (found == expected).float().mean() > 0.97
    assert len(said) == 1 and 'cannot be told in half precision' in said[0]


def test_a_sweep_reads_a_memory_as_an_operating_point_does():
    net = model()
    channels = net.decode_head.conv_seg.in_channels
    keys, labels = torch.randn(9, channels), torch.arange(9) % 3
    memory = ClassMemory(keys, labels, 3, 0.5)
    sweep = LogitAdjustmentSweep(class_prior=ClassPrior(COUNTS), taus=(0.0, 0.5, 1.0))
    sweep.dataset_meta = dict(classes=('a', 'b', 'c'))
    net.reader.set_memory(memory, 1.0)
    label = dict(data=torch.randint(0, 3, (1, 40, 56)))
    sample = predict(net, IMAGE)
    sweep.process({}, [dict(seg_logits=dict(data=sample.seg_logits.data), gt_sem_seg=label)])
    predicted = sweep.results[0][:, 2]
    for tau, found in zip(sweep.taus, predicted, strict=True):
        net.reader.set_point(replace(TAU, tau=tau, memory_weight=1.0, memory='m.pth'), memory)
        expected = predict(net, IMAGE).pred_sem_seg.data.flatten().bincount(minlength=3)
        assert found.tolist() == pytest.approx(expected.tolist(), abs=3)  # ties


@pytest.mark.parametrize('point', [None, RULE])
def test_views_are_averaged_before_the_decision(point):
    net = model(point)
    tta = MODELS.build(dict(type='LTMISegTTAModel', module=net))
    views = [predict(net, IMAGE + 0.5 * i) for i in range(2)]
    for view in views:
        view.set_metainfo(dict(img_path='a.png'))
    mean = torch.stack([view.seg_logits.data.softmax(0) for view in views]).mean(0)
    merged = tta.merge_preds([views])[0]
    torch.testing.assert_close(merged.seg_logits.data, mean.log())
    scores = mean if point is None else point.scores(mean.log())
    assert (merged.pred_sem_seg.data == scores.argmax(0)).float().mean() > 0.999


def test_bad_input():
    with pytest.raises(ValueError, match='4 classes.*num_classes=3'):
        model(OperatingPoint('tau', tuple('abcd'), (-1.0,) * 4))
    with pytest.raises(ValueError, match='tau_test=0.5 and the segmentor'):
        model(TAU, tau_test=0.5)
    net = model(tau_test=0.5)
    for point in (TAU, replace(TAU, tau=0.0), replace(TAU, classes=tuple('abcd'))):
        with pytest.raises(ValueError):
            net.set_operating_point(point.to_dict())
        assert not net.reader.has_point and predict(net, IMAGE)  # as it was
    with pytest.raises((OSError, ValueError)):
        model('')
    with pytest.raises(ValueError, match='of another model.*fingerprint'):
        predict(model(replace(TAU, weights='0123')), IMAGE)
    of_this = network_fingerprint(model())
    for weights in (of_this, of_this.partition('-')[0]):  # earlier versions wrote the latter
        predict(model(replace(TAU, weights=weights)), IMAGE)
    net = model(replace(TAU, weights=of_this))
    torch.nn.init.normal_(next(net.backbone.parameters()))  # under the same classifier
    with pytest.raises(ValueError, match='of another model.*fingerprint'):
        predict(net, IMAGE)
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    two = OperatingPoint('tau', ('a', 'b'), (-0.1, -2.0))
    with pytest.raises(ValueError, match='out_channels=1'):
        model(two, ltmi=False, loss=loss, num_classes=2, out_channels=1, threshold=0.3)
    with pytest.raises(ValueError, match='takes no operating point'):
        with_operating_point(Config(dict(model=dict(type='SegTTAModel'))).model)
