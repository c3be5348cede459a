"""Each LTMI head, from the plain head's arguments: trains, predicts, keeps its state-dict keys."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import decode_heads
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_ltmi.models.decode_heads import SUPPORTED_HEADS, UNSUPPORTED_HEADS, ltmi_head

BN = dict(type='BN')
LA = dict(type='LogitAdjustedLoss', class_prior=[8, 4, 2, 1])
ONE = dict(in_channels=16, channels=8, norm_cfg=BN)
MANY = dict(
    in_channels=[8, 16, 16],
    in_index=[0, 1, 2],
    channels=8,
    norm_cfg=BN,
    input_transform='multiple_select',
)
ARGUMENTS = {
    'ANNHead': dict(
        in_channels=[16, 16], in_index=[1, 2], channels=8, norm_cfg=BN, project_channels=8
    ),
    'APCHead': ONE, 'ASPPHead': ONE, 'DAHead': {**ONE, 'pam_channels': 4},
    'DMHead': ONE, 'DNLHead': ONE, 'DepthwiseSeparableASPPHead': {
        **ONE, 'c1_in_channels': 8, 'c1_channels': 4},
    'DepthwiseSeparableFCNHead': ONE,
    'EMAHead': {**ONE, 'ema_channels': 8, 'num_bases': 4, 'num_stages': 2},
    'EncHead': dict(in_channels=[16, 16], in_index=[1, 2], channels=8, norm_cfg=BN, num_codes=4),
    'FCNHead': ONE, 'FPNHead': dict(
        in_channels=[8, 16, 16], in_index=[0, 1, 2], channels=8, norm_cfg=BN,
        feature_strides=[4, 8, 8]),
    'GCHead': ONE, 'ISAHead': {**ONE, 'isa_channels': 4, 'down_factor': (2, 2)},
    'LRASPPHead': {**MANY, 'branch_channels': (4, 4)},
    'LightHamHead': dict(
        in_channels=[8, 16, 16], in_index=[0, 1, 2], channels=8, ham_channels=8,
        norm_cfg=dict(type='GN', num_groups=4), ham_kwargs=dict(MD_R=4, train_steps=2)),
    'NLHead': ONE, 'OCRHead': {**ONE, 'ocr_channels': 4}, 'PSPHead': ONE,
    'STDCHead': {**ONE, 'num_convs': 1, 'boundary_threshold': 0.1, 'num_classes': 2},
    'SegformerHead': dict(in_channels=[8, 16, 16], in_index=[0, 1, 2], channels=8, norm_cfg=BN),
    'UPerHead': dict(in_channels=[8, 16, 16], in_index=[0, 1, 2], channels=8, norm_cfg=BN),
    'DDRHead': dict(in_channels=16, channels=8, norm_cfg=BN, loss_decode=[LA, LA]),
    'PIDHead': dict(in_channels=16, channels=8, norm_cfg=BN, loss_decode=[
        LA, LA, dict(type='BoundaryLoss'), LA]),
    'SETRUPHead': {**ONE, 'num_convs': 1, 'up_scale': 2},
    'SETRMLAHead': dict(
        in_channels=[16, 16], in_index=[1, 2], channels=8, mla_channels=4, norm_cfg=BN, up_scale=2),
}  # fmt: skip
# CCHead, PSAHead and PointHead call compiled ops; DPTHead takes a transformer's tokens.
ELSEWHERE = {'CCHead', 'PSAHead', 'PointHead', 'DPTHead'}


def features(name):
    maps = [torch.randn(2, 8, 32, 32), torch.randn(2, 16, 16, 16), torch.randn(2, 16, 16, 16)]
    if name == 'DDRHead':
        return (torch.randn(2, 8, 16, 16), torch.randn(2, 16, 16, 16))
    if name == 'LRASPPHead':  # it pools over 49x49
        return [torch.randn(2, c, 56, 56) for c in (8, 16, 16)]
    if name == 'PIDHead':
        return tuple(torch.randn(2, c, 16, 16) for c in (8, 16, 8))
    return maps


def data_samples():
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 4, (1, 64, 64)))
        sample.gt_edge_map = PixelData(data=torch.randint(0, 2, (1, 64, 64)))
        samples.append(sample)
    return samples


def test_every_supported_head_is_tried_or_named():
    assert set(ARGUMENTS) | ELSEWHERE == set(SUPPORTED_HEADS)


def test_every_head_of_mmseg_has_an_answer():
    # KernelUpdateHead is a part of IterativeDecodeHead.
    heads = {n for n in decode_heads.__all__ if n.endswith('Head')} - {'KernelUpdateHead'}
    assert heads == set(SUPPORTED_HEADS) | set(UNSUPPORTED_HEADS)


@pytest.mark.parametrize('name', ARGUMENTS)
def test_head(name):
    torch.manual_seed(0)
    arguments = {'num_classes': 4, 'loss_decode': LA, **ARGUMENTS[name]}
    if name == 'STDCHead':
        arguments['loss_decode'] = dict(type='LogitAdjustedLoss', class_prior=[9, 1])
    prior = [9, 1] if name == 'STDCHead' else [8, 4, 2, 1]
    plain = MODELS.build(dict(type=name, **arguments))
    head = MODELS.build(dict(type=f'LTMI{name}', contrast=dict(class_prior=prior), **arguments))
    extra = set(head.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) <= set(head.state_dict())
    assert all(k.startswith(('contrast.', 'inference_prior.')) for k in extra)

    inputs = features(name)
    cascade = [torch.randn(2, 4, 16, 16)] if name == 'OCRHead' else []
    head.train()
    losses = head.loss(inputs, *cascade, data_samples(), None)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert losses['loss_contrast'].isfinite() and losses['queue_fill'] > 0
    assert head.conv_seg.weight.grad.isfinite().all()

    plain.load_state_dict(head.state_dict(), strict=False)
    tested = inputs[1] if name in ('DDRHead', 'PIDHead') else inputs
    metas = [dict(img_shape=(64, 64))] * 2
    with torch.no_grad():
        ours = head.eval().predict(tested, *cascade, metas, None)
        raw = plain.eval().predict(tested, *cascade, metas, None)
    shift = torch.tensor(prior).float().div(sum(prior)).log().view(1, -1, 1, 1)
    if name != 'LightHamHead':  # its matrix decomposition starts from random bases
        torch.testing.assert_close(ours, raw + shift, atol=1e-3, rtol=1e-3)


def test_users_own_head():
    @ltmi_head
    @MODELS.register_module(force=True)
    class TinyHead(decode_heads.FCNHead):
        pass

    head = MODELS.build(dict(type='LTMITinyHead', num_classes=4, loss_decode=LA, **ONE))
    assert isinstance(head, TinyHead) and head.contrast is None
    with pytest.raises(TypeError, match='BaseDecodeHead'):
        ltmi_head(torch.nn.Linear)


@pytest.mark.parametrize('name', UNSUPPORTED_HEADS)
def test_others_say_why(name):
    with pytest.raises(TypeError, match=f'LTMI{name} does not exist: .*'):
        MODELS.build(dict(type=f'LTMI{name}'))
