"""What a traced or exported model gives: the scores that predict() reads, or a warning."""

import warnings

import onnxruntime
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from tiny import batch, segmentor, total

from mmseg_ltmi.apis.convert import to_stock
from mmseg_ltmi.core import OperatingPoint
from mmseg_ltmi.models.segmentors import ReadScores

CROSS_ENTROPY = dict(type='CrossEntropyLoss')
LOG_PRIOR = torch.tensor([0.80, 0.15, 0.04, 0.01]).log()
POINT = OperatingPoint('tau', tuple('abcd'), tuple(LOG_PRIOR.tolist()), 0.7)
RULE = OperatingPoint('iou', tuple('abcd'), POINT.log_prior, iou=(0.5,) * 4, union=(1.0,) * 4)
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
RAW = 'exported graph gives raw scores.*mmseg-ltmi convert.*docs/export.md'


def config(head, ltmi):
    """A small segmentor with a head of each kind, in its LTMI or its stock form."""
    cfg = segmentor(ltmi=ltmi, test_cfg=ConfigDict(mode='whole'))
    fcn = cfg['decode_head']
    if not ltmi:
        fcn['loss_decode'] = CROSS_ENTROPY
    other = {k: v for k, v in fcn.items() if k not in ('num_convs', 'concat_input', 'type')}
    two_maps = dict(in_channels=[64, 128], in_index=[0, 1])
    kinds = {
        'FCNHead': {},
        'UPerHead': dict(two_maps, pool_scales=(1, 2)),
        'SegformerHead': two_maps,
        'OCRHead': dict(ocr_channels=8),
    }
    made = {**other, **kinds[head], 'type': f'LTMI{head}' if ltmi else head}
    if head == 'OCRHead':
        return {**cfg, 'type': 'CascadeEncoderDecoder', 'num_stages': 2, 'decode_head': [fcn, made]}
    return {**cfg, 'decode_head': fcn if head == 'FCNHead' else made}


def trained(cfg):
    """The model after a step, whose scores differ from pixel to pixel."""
    torch.manual_seed(0)
    model = MODELS.build(cfg).train()
    for part in model.modules():
        if hasattr(part, 'conv_seg'):
            torch.nn.init.normal_(part.conv_seg.weight)
    total(model.loss(*batch())).backward()
    return model.eval()


def predicted(model, size=(8, 8)):
    """What predict() reads, at the resolution of the head."""
    meta = [dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)]
    with torch.no_grad():
        scores = model.encode_decode(IMAGES, meta)
        return model.postprocess_result(scores, None)[0].seg_logits.data[None]


def onnx_scores(model, folder):
    torch.onnx.export(model, (IMAGES,), folder / 'a.onnx', input_names=['images'], verbose=False)
    session = onnxruntime.InferenceSession(folder / 'a.onnx')
    return torch.from_numpy(session.run(None, {'images': IMAGES.numpy()})[0])


@pytest.mark.parametrize('head', ['FCNHead', 'UPerHead', 'SegformerHead', 'OCRHead'])
def test_a_converted_model_exports_what_the_ltmi_model_predicts(head, tmp_path):
    ltmi = trained(config(head, ltmi=True))
    stock = MODELS.build(config(head, ltmi=False)).eval()
    stock.load_state_dict(to_stock(ltmi.state_dict()), strict=True)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message=RAW)
        found = onnx_scores(stock, tmp_path)
    expected = predicted(ltmi, found.shape[2:])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    with torch.no_grad():
        assert (ltmi(IMAGES) - expected).abs().max() > 4  # and not the raw ones
        for graph in (
            torch.export.export(stock, (IMAGES,)).module(),
            torch.jit.trace(stock, IMAGES),
        ):
            torch.testing.assert_close(graph(IMAGES), expected, atol=1e-4, rtol=0)


def with_tau_test():
    return segmentor(head=dict(tau_test=0.5))


def with_point(ltmi=False):
    return segmentor(ltmi=ltmi, type='LTMIEncoderDecoder', operating_point=POINT.to_dict())


def with_cosine():
    return segmentor(head=dict(classifier=dict(type='cosine')))


@pytest.mark.parametrize('make', [with_tau_test, with_point, with_cosine])
def test_scores_that_are_read_are_exported(make, tmp_path):
    model = trained({**make(), 'test_cfg': ConfigDict(mode='whole')})
    if make is with_point:  # which training has ended
        model.reader.set_point(POINT)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message=RAW)
        read = ReadScores(model)
        found = onnx_scores(read, tmp_path)
        torch.jit.trace(read, IMAGES)
    torch.testing.assert_close(found, predicted(model), atol=1e-4, rtol=0)


def test_read_scores_refuses_what_it_cannot_read():
    with pytest.raises(ValueError, match='FCNHead reads no scores.*export it as it is'):
        ReadScores(MODELS.build(segmentor(ltmi=False)))
    model = MODELS.build(segmentor(type='LTMIEncoderDecoder', operating_point=RULE.to_dict()))
    with pytest.raises(ValueError, match='decides by the IoU rule.*tau by mIoU'):
        ReadScores(model)


EXPORTERS = {
    'torch.jit.trace': lambda model: torch.jit.trace(model, IMAGES),
    'torch.export': lambda model: torch.export.export(model, (IMAGES,)),
    'torch.export by dynamo': lambda model: torch.export.export(model, (IMAGES,), strict=True),
    'ONNX': lambda model: torch.onnx.export(model, (IMAGES,), verbose=False),
}


def warned(export, model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')
        export(model)
    return [str(w.message) for w in caught if 'raw scores' in str(w.message)]


@pytest.mark.parametrize('export', EXPORTERS.values(), ids=EXPORTERS)
@pytest.mark.parametrize('ltmi', [True, False], ids=['ltmi', 'stock'])
def test_exporting_raw_scores_warns_once(export, ltmi):
    kind = 'EncoderDecoder' if ltmi else 'LTMIEncoderDecoder'  # whoever has the reader
    model = MODELS.build(segmentor(ltmi=ltmi, type=kind)).eval()
    (message,) = warned(export, model)
    assert 'mmseg-ltmi convert' in message and 'docs/export.md' in message


def test_an_operating_point_is_a_reason_to_warn():
    plain = segmentor(head=dict(loss_decode=CROSS_ENTROPY), type='LTMIEncoderDecoder')
    model = MODELS.build(plain).eval()
    trace = EXPORTERS['torch.jit.trace']
    assert not warned(trace, model)  # raw scores are the natural posterior
    model.reader.set_point(POINT)
    assert warned(trace, model)
    model.reader.reset_point()
    model.decode_head.tau_test = 0.5
    assert warned(trace, model)


def test_a_stock_checkpoint_in_an_ltmi_head_does_not_warn():
    model = MODELS.build(segmentor()).eval()
    assert warned(EXPORTERS['torch.jit.trace'], model)
    model.load_state_dict(MODELS.build(segmentor(ltmi=False)).state_dict())
    assert not warned(EXPORTERS['torch.jit.trace'], model)


def test_a_shift_that_training_has_learned_is_a_reason_to_warn():
    online = dict(type='LogitAdjustedLoss', class_prior='online')
    model = MODELS.build(segmentor(head=dict(loss_decode=online, contrast=None)))
    assert not warned(EXPORTERS['torch.jit.trace'], model.eval())
    model.train().loss(*batch())
    assert warned(EXPORTERS['torch.jit.trace'], model.eval())


def test_neither_compiling_nor_predicting_nor_training_warns():
    model = MODELS.build(segmentor(test_cfg=ConfigDict(mode='whole'))).eval()
    meta = [dict(img_shape=(64, 64), ori_shape=(64, 64), padding_size=[0] * 4)]
    assert not warned(lambda m: torch.compile(m, backend='aot_eager')(IMAGES), model)
    assert not warned(lambda m: m(IMAGES), model)
    predict = torch.nn.Module()
    predict.model = model
    predict.forward = lambda images: model.encode_decode(images, meta)
    assert not warned(EXPORTERS['torch.jit.trace'], predict)
    compiled = torch.compile(model.train().loss, backend='aot_eager')
    assert not warned(lambda _: compiled(*batch()), model)
    assert warned(EXPORTERS['torch.jit.trace'], model.eval())  # and it can, still
