import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.registry import MODELS
from tiny import batch, segmentor

from mmseg_ltmi.apis.convert import convert, to_stock
from mmseg_ltmi.core import OperatingPoint
from mmseg_ltmi.models.decode_heads import LTMIHeadMixin

TOOL = Path(__file__).parents[2] / 'tools/model_converters/ltmi_to_stock.py'
COMMON = dict(in_channels=8, channels=8, num_classes=3, norm_cfg=dict(type='BN'))
LOSS = dict(type='LogitAdjustedLoss', class_prior=[8, 4, 1])
FEATURE, META = [torch.randn(1, 8, 4, 4)], [dict(img_shape=(8, 8))]


def ltmi_head(**more):
    return MODELS.build(dict(type='LTMIFCNHead', loss_decode=LOSS, **COMMON, **more)).eval()


def assert_same_predictions(state, ours):
    stock = MODELS.build(dict(type='FCNHead', **COMMON)).eval()
    stock.load_state_dict(state, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(
            stock.predict(FEATURE, META, None), ours.predict(FEATURE, META, None)
        )


@pytest.mark.parametrize('tau', [0.0, 0.5])
def test_stock_head_predicts_the_same(tmp_path, tau):
    ours = ltmi_head(contrast=dict(class_prior=[8, 4, 1]))
    torch.save({'meta': {'iter': 3}, 'state_dict': ours.state_dict()}, tmp_path / 'ltmi.pth')
    convert(tmp_path / 'ltmi.pth', tmp_path / 'new' / 'stock.pth', tau)
    checkpoint = torch.load(tmp_path / 'new' / 'stock.pth')
    assert checkpoint['meta']['iter'] == 3
    ours.tau_test = tau
    assert_same_predictions(checkpoint['state_dict'], ours)


def test_a_loss_with_a_prior_does_not_shift_converted_scores_again(tmp_path, caplog, capsys):
    torch.manual_seed(0)
    ours = MODELS.build(ConfigDict(segmentor())).eval()
    torch.save({'state_dict': ours.state_dict(), 'meta': {}}, tmp_path / 'a.pth')
    convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    stock = segmentor(ltmi=False)
    teacher = dict(config=dict(model=stock), checkpoint=str(tmp_path / 'b.pth'))
    student = dict(type='DistilledEncoderDecoder', teacher=teacher, alpha=1.0)
    assert not student_of(student).teacher.natural_shift.any()
    inputs, samples = batch()
    with torch.no_grad():
        expected = ours.predict(inputs)[0].seg_logits.data
        for kind in ('EncoderDecoder', 'LTMIEncoderDecoder'):
            model = MODELS.build(ConfigDict({**stock, 'type': kind}))
            capsys.readouterr()
            load_checkpoint(model.eval(), str(tmp_path / 'b.pth'))
            assert 'unexpected key' not in capsys.readouterr().out
            torch.testing.assert_close(model.predict(inputs)[0].seg_logits.data, expected)
        # What this loss trained is shifted, as ever.
        state = torch.load(tmp_path / 'b.pth')['state_dict']
        torch.save({'state_dict': dict(state)}, tmp_path / 'c.pth')
        model = MODELS.build(ConfigDict({**stock, 'type': kind})).eval()
        load_checkpoint(model, str(tmp_path / 'c.pth'))
        shifted = model.predict(inputs)[0].seg_logits.data - expected
        log_prior = model.decode_head.loss_decode.log_prior
        torch.testing.assert_close(shifted[:, 0, 0], log_prior, atol=1e-3, rtol=0)
    # Training tells it of its own loss.
    load_checkpoint(model, str(tmp_path / 'b.pth'))
    model.train().loss(inputs, samples)
    torch.testing.assert_close(model.reader.natural_shift, log_prior)


def student_of(options):
    student = MODELS.build(segmentor(**options))
    student.teacher.load()
    return student


def test_an_ltmi_head_reads_a_converted_checkpoint_as_it_is(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        sys.modules[LTMIHeadMixin.__module__], 'print_log', lambda text, *_: told.append(text)
    )
    torch.manual_seed(0)
    files = [str(tmp_path / f'{name}.pth') for name in ('ltmi', 'natural', 'balanced')]

    def load(file, **more):
        model = MODELS.build(ConfigDict(segmentor(**more))).eval()
        load_checkpoint(model, file)
        return model

    def predict(model):
        return model.predict(inputs)[0].seg_logits.data

    torch.save({'state_dict': MODELS.build(ConfigDict(segmentor())).state_dict()}, files[0])
    for file, tau in zip(files[1:], (0.0, 1.0), strict=True):
        convert(files[0], file, tau)
    inputs, _ = batch()
    with torch.no_grad():
        ours, natural, balanced = map(load, files)
        expected = predict(ours)
        torch.testing.assert_close(predict(natural), expected)
        ours.decode_head.score_reader.tau_test = 1.0
        torch.testing.assert_close(predict(balanced), predict(ours))
        # It is known which part is the natural posterior.
        balanced.decode_head.score_reader.reset_point()
        torch.testing.assert_close(predict(balanced), expected)
        # A point that the config names takes the place of the converted one.
        log_prior = tuple(ours.decode_head.log_prior.tolist())
        point = OperatingPoint('tau', tuple('abcd'), log_prior, tau=0.5)
        more = dict(type='LTMIEncoderDecoder', operating_point=point.to_dict())
        at_point = predict(load(files[0], **more))
        for file in files[1:]:
            torch.testing.assert_close(predict(load(file, **more)), at_point)
    assert set(told) == {
        'decode_head: the checkpoint was converted, and its scores are read as they are'
    }
    reader = load(files[1], head=dict(test_prior=[1, 1, 1, 1])).decode_head.score_reader
    assert not reader.natural_shift.any() and told[-1].endswith(', without test_prior')


def test_tool(tmp_path):
    torch.save(ltmi_head().state_dict(), tmp_path / 'a.pth')
    command = [sys.executable, TOOL, tmp_path / 'a.pth', tmp_path / 'b.pth', '--tau-test', '1']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and 'read at tau_test=1' in done.stdout, done.stderr
    done = subprocess.run([*command[:2], tmp_path / 'b.pth', 'c'], capture_output=True, text=True)
    assert done.returncode == 1 and 'b.pth: it has no LTMI head' in done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and 'b.pth exists' in done.stderr and 'give --force' in done.stderr


def of_earlier_version(state):
    """The names before there was a ScoreReader, which had no operating point in a head."""
    gone = ('score_reader.point_shift', 'score_reader.iou', 'score_reader.union')
    return {
        key.replace('score_reader.', 'inference_prior.'): value
        for key, value in state.items()
        if not key.endswith(gone)
    }


def test_checkpoints_of_earlier_versions():
    ours = ltmi_head()
    old = of_earlier_version(ours.state_dict())
    assert 'inference_prior.log_prior' in old
    ours.tau_test = 0.5
    assert_same_predictions(to_stock(old, 0.5), ours)

    whole = {f'decode_head.{key}': value for key, value in old.items()}
    whole |= {'decision.shift': torch.zeros(3), 'decision.iou': torch.full((3,), torch.nan)}
    whole['decision.union'] = whole['decision.iou']
    natural = to_stock(whole)
    assert set(natural) == {
        f'decode_head.{key}' for key in MODELS.build(dict(type='FCNHead', **COMMON)).state_dict()
    }
    point = torch.tensor([0.1, 0.3, 1.7])
    bias = 'decode_head.conv_seg.bias'
    torch.testing.assert_close(
        to_stock({**whole, 'decision.shift': point})[bias], natural[bias] + point
    )
    with pytest.raises(ValueError, match='IoU rule'):
        to_stock({**whole, 'decision.iou': torch.ones(3)})


def test_a_student_becomes_a_stock_segmentor():
    student = MODELS.build(segmentor(type='DistilledEncoderDecoder', teacher=dict(type='EMA')))
    stock = MODELS.build(segmentor(ltmi=False))
    stock.load_state_dict(to_stock(student.state_dict()), strict=True)


@pytest.mark.parametrize('ltmi', [True, False])
def test_an_operating_point_goes_along(ltmi):
    log_prior = torch.tensor([0.80, 0.15, 0.04, 0.01]).log()
    common = tuple('abcd'), tuple(log_prior.tolist())
    model = MODELS.build(segmentor(ltmi=ltmi, type='LTMIEncoderDecoder'))
    raw = model.state_dict()['decode_head.conv_seg.bias'].clone()
    model.reader.set_point(OperatingPoint('tau', *common, tau=0.7))
    bias = to_stock(model.state_dict())['decode_head.conv_seg.bias']
    torch.testing.assert_close(bias, raw + 0.3 * log_prior, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match='leave --tau-test out, which is 0.5'):
        to_stock(model.state_dict(), 0.5)
    rule = OperatingPoint('iou', *common, iou=(0.5,) * 4, union=(0.1,) * 4)
    model.reader.set_point(rule)
    with pytest.raises(ValueError, match='IoU rule.*with --tau-test, or embed a tau'):
        to_stock(model.state_dict())


def test_the_raw_scores_of_a_coarse_head_stay():
    fcn = segmentor()['decode_head']
    ocr = {k: v for k, v in fcn.items() if k not in ('num_convs', 'concat_input')}
    ocr |= dict(type='LTMIOCRHead', ocr_channels=8)
    options = dict(type='CascadeEncoderDecoder', num_stages=2)
    state = MODELS.build(segmentor(decode_head=[fcn, ocr], **options)).state_dict()
    found = to_stock(state)
    coarse, last = (f'decode_head.{i}.conv_seg.bias' for i in range(2))
    assert torch.equal(found[coarse], state[coarse])  # the next head takes them as in training
    shift = state['decode_head.1.score_reader.natural_shift']
    torch.testing.assert_close(found[last], state[last] + shift)


def test_what_only_training_needs_is_left_out_and_dtypes_stay():
    online = dict(type='LTMILoss', class_prior='online')
    auxiliary = segmentor(index=0, head=dict(loss_decode=online, contrast=None))['decode_head']
    options = dict(type='LTMIEncoderDecoder', auxiliary_head=auxiliary)
    model = MODELS.build(segmentor(head=dict(loss_decode=online, contrast=dict()), **options))
    model.train().loss(*batch())
    found = to_stock(model.half().state_dict())
    auxiliary = segmentor(ltmi=False, index=0)['decode_head']
    stock = MODELS.build(segmentor(ltmi=False, auxiliary_head=auxiliary))
    stock.load_state_dict(found, strict=True)
    assert {v.dtype for v in found.values() if v.is_floating_point()} == {torch.float16}


@pytest.mark.parametrize('cascade', [False, True])
def test_a_stock_head_under_a_segmentor_that_reads_its_scores(cascade):
    state = MODELS.build(segmentor(ltmi=False, type='LTMIEncoderDecoder')).state_dict()
    shift = state['score_reader.natural_shift']
    assert shift.abs().max() > 0
    place = 'decode_head.'
    if cascade:
        place = 'decode_head.1.'
        state = {k.replace('decode_head.', place): v for k, v in state.items()}
        state['decode_head.0.conv_seg.bias'] = torch.zeros(4)
    found = to_stock(state)
    torch.testing.assert_close(
        found[f'{place}conv_seg.bias'], state[f'{place}conv_seg.bias'] + shift
    )
    assert not any('score_reader' in key for key in found)
    assert not cascade or found['decode_head.0.conv_seg.bias'].eq(0).all()


def test_cosine_classifier_has_no_stock_form():
    model = MODELS.build(segmentor(head=dict(classifier=dict(type='cosine'))))
    with pytest.raises(ValueError, match='decode_head.conv_seg.bias.*docs/export.md'):
        to_stock(model.state_dict())


def test_the_file_keeps_its_meta_and_is_another_file(tmp_path):
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c'), palette=[[0] * 3] * 3), iter=7)
    content = dict(meta=meta, state_dict=ltmi_head().state_dict(), optimizer={}, message_hub={})
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='a.pth is the checkpoint itself: name another file'):
        convert(tmp_path / 'a.pth', tmp_path / 'x' / '..' / 'a.pth')
    convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    found = torch.load(tmp_path / 'b.pth')
    assert found['meta'] == meta and set(found) == {'meta', 'state_dict'}
    (tmp_path / 'a.pth').write_bytes((tmp_path / 'a.pth').read_bytes()[:500])
    with pytest.raises(ValueError, match='a.pth cannot be read as a checkpoint. It is truncated'):
        convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert torch.load(tmp_path / 'b.pth')['meta'] == meta


def test_what_is_no_ltmi_checkpoint_is_refused(tmp_path):
    torch.save(MODELS.build(dict(type='FCNHead', **COMMON)).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='a.pth: it has no LTMI head.*needs no conv'):
        convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()
    state = ltmi_head().state_dict()
    del state['score_reader.natural_shift']
    with pytest.raises(ValueError, match='it has no score_reader.natural_shift'):
        to_stock(state)
    with pytest.raises(ValueError, match='score_reader.*tau_test=0.5 needs the class prior'):
        to_stock(MODELS.build(dict(type='LTMIFCNHead', **COMMON)).state_dict(), 0.5)
