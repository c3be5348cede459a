import subprocess
import sys
from pathlib import Path

import torch
from mmseg.registry import MODELS
from tiny import segmentor

import mmseg_ltmi  # noqa: F401

TOOL = Path(__file__).parents[2] / 'tools/model_converters/ltmi_to_stock.py'
COMMON = dict(in_channels=8, channels=8, num_classes=3, norm_cfg=dict(type='BN'))


def convert(source, target, *options):
    command = [sys.executable, TOOL, source, target, *options]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True)


def test_stock_head_predicts_the_same(tmp_path):
    loss = dict(type='LogitAdjustedLoss', class_prior=[8, 4, 1])
    ours = MODELS.build(
        dict(type='LTMIFCNHead', loss_decode=loss, contrast=dict(class_prior=[8, 4, 1]), **COMMON)
    ).eval()
    stock = MODELS.build(dict(type='FCNHead', **COMMON)).eval()
    torch.save({'meta': {'iter': 3}, 'state_dict': ours.state_dict()}, tmp_path / 'ltmi.pth')
    feature, meta = [torch.randn(1, 8, 4, 4)], [dict(img_shape=(8, 8))]
    for tau in (0.0, 0.5):
        done = convert(tmp_path / 'ltmi.pth', tmp_path / 'stock.pth', '--tau-test', tau)
        assert done.returncode == 0, done.stderr
        checkpoint = torch.load(tmp_path / 'stock.pth', weights_only=True)
        assert checkpoint['meta']['iter'] == 3
        stock.load_state_dict(checkpoint['state_dict'], strict=True)
        ours.tau_test = tau
        with torch.no_grad():
            torch.testing.assert_close(
                stock.predict(feature, meta, None), ours.predict(feature, meta, None)
            )


def test_a_student_becomes_a_stock_segmentor(tmp_path):
    distilled = dict(type='DistilledEncoderDecoder', teacher=dict(type='EMA'))
    student = MODELS.build(segmentor(**distilled))
    torch.save(student.state_dict(), tmp_path / 'student.pth')
    done = convert(tmp_path / 'student.pth', tmp_path / 'stock.pth')
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / 'stock.pth', weights_only=True)['state_dict']
    MODELS.build(segmentor(ltmi=False)).load_state_dict(state, strict=True)

    student.decision.shift += 1
    torch.save(student.state_dict(), tmp_path / 'student.pth')
    done = convert(tmp_path / 'student.pth', tmp_path / 'b.pth')
    assert done.returncode != 0 and 'operating point' in done.stderr


def test_cosine_classifier_has_no_stock_form(tmp_path):
    model = MODELS.build(segmentor(head=dict(classifier=dict(type='cosine'))))
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    done = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert done.returncode != 0 and 'conv_seg.bias to carry the shift' in done.stderr


def test_a_stock_checkpoint_is_refused(tmp_path):
    torch.save(MODELS.build(dict(type='FCNHead', **COMMON)).state_dict(), tmp_path / 'a.pth')
    done = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert done.returncode != 0 and 'no LTMI head' in done.stderr
    assert not (tmp_path / 'b.pth').exists()
    state = MODELS.build(dict(type='LTMIFCNHead', **COMMON)).state_dict()
    del state['inference_prior.natural_shift']
    torch.save(state, tmp_path / 'a.pth')
    assert 'it has no inference_prior.natural_shift' in convert(tmp_path / 'a.pth', 'b').stderr
