"""Each head of mmsegmentation in its LTMI form, from one of mmsegmentation's own configs.

With LTMI_WRITE_DOCS=1 the run writes the table in docs/heads.md; otherwise it compares.
"""

import copy
import os
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.models import decode_heads
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny import LOSS, total

from mmseg_ltmi.apis.convert import to_stock
from mmseg_ltmi.compat import _MissingOps
from mmseg_ltmi.models.decode_heads import (
    OWN_FORMS,
    SUPPORTED_HEADS,
    UNSUPPORTED_HEADS,
    ltmi_head,
)
from mmseg_ltmi.models.segmentors import network_fingerprint

CONFIGS = Path(mmseg.__file__).parent / '.mim/configs'
TABLE = Path(__file__).parents[2] / 'docs/heads.md'
SMOKE = ('FCNHead', 'OCRHead', 'SegformerHead', 'UPerHead')
NEEDS_OPS = {'PSAHead'}
has_ops = not isinstance(sys.modules['mmcv._ext'], _MissingOps)
BASE = {
    'ANNHead': 'ann_r50-d8', 'APCHead': 'apcnet_r50-d8', 'ASPPHead': 'deeplabv3_r50-d8',
    'CCHead': 'ccnet_r50-d8', 'DAHead': 'danet_r50-d8', 'DMHead': 'dmnet_r50-d8',
    'DNLHead': 'dnl_r50-d8', 'DPTHead': 'dpt_vit-b16',
    'DepthwiseSeparableASPPHead': 'deeplabv3plus_r50-d8', 'DepthwiseSeparableFCNHead': 'fast_scnn',
    'EMAHead': 'emanet_r50-d8', 'EncHead': 'encnet_r50-d8', 'FCNHead': 'fcn_r50-d8',
    'FPNHead': 'fpn_r50', 'GCHead': 'gcnet_r50-d8', 'ISAHead': 'isanet_r50-d8',
    'LRASPPHead': 'lraspp_m-v3-d8', 'NLHead': 'nonlocal_r50-d8', 'OCRHead': 'ocrnet_hr18',
    'PSAHead': 'psanet_r50-d8', 'PSPHead': 'pspnet_r50-d8', 'PointHead': 'pointrend_r50',
    'SETRMLAHead': 'setr_mla', 'SETRUPHead': 'setr_naive', 'STDCHead': 'stdc',
    'SegformerHead': 'segformer_mit-b0', 'SegmenterMaskTransformerHead': 'segmenter_vit-b16_mask',
    'SideAdapterCLIPHead': 'san_vit-b16', 'UPerHead': 'upernet_r50',
}  # fmt: skip
FILES = {
    **{head: f'_base_/models/{name}.py' for head, name in BASE.items()},
    'DDRHead': 'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py',
    'IterativeDecodeHead': 'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
    'LightHamHead': 'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py',
    'Mask2FormerHead': 'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    'MaskFormerHead': 'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    'PIDHead': 'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
    'VPDDepthHead': 'vpd/vpd_sd_4xb8-25k_nyu-480x480.py',
}
ANSWERS: dict[str, str] = {}


def model_config(name):
    """The stock model and the image size that is small for it; nothing is downloaded."""
    model = Config.fromfile(CONFIGS / FILES[name], import_custom_modules=False).model
    model.pop('pretrained', None)
    if 'SETR' in name:  # ViT-L has 300 million parameters
        model.backbone.update(num_layers=4, out_indices=(0, 1, 2, 3))
    return model, 400 if name == 'LRASPPHead' else 64  # it pools over 49x49


def heads_of(model):
    """(role, head) of every head, as configs or as modules."""
    for role in ('decode_head', 'auxiliary_head'):
        found = model.get(role) if isinstance(model, dict) else getattr(model, role, None)
        several = isinstance(found, (list, torch.nn.ModuleList))
        for head in found if several else [found] * (found is not None):
            yield role, head


def counts_of(head):
    number = head['num_classes'] if isinstance(head, dict) else head.num_classes
    return [2.0 ** -(c % 8) for c in range(number)]


def to_ltmi(model):
    """Every head in its LTMI form, with contrast wherever there is a feature map."""
    model = copy.deepcopy(model)
    for _, head in heads_of(model):
        loss = head.get('loss_decode', dict(type='CrossEntropyLoss'))
        adjusted = dict(type='LogitAdjustedLoss', class_prior=counts_of(head))
        others = ('BoundaryLoss', 'DiceLoss')
        losses = [
            part if part['type'] in others else adjusted
            for part in (loss if isinstance(loss, list) else [loss])
        ]
        head.loss_decode = losses if isinstance(loss, list) else losses[0]
        if head.type != 'PointHead':
            head.contrast = dict(
                class_prior=counts_of(head), queue=dict(size=2048), sampler=dict(num_samples=256)
            )
        head.type = f'LTMI{head.type}'
    return model


def batch(size, num_classes, step):
    generator = torch.Generator().manual_seed(step)
    samples = []
    for _ in range(2):
        meta = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size))
        sample = SegDataSample(metainfo=meta)
        labels = torch.randint(0, num_classes, (1, size, size), generator=generator)
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=(labels == 0).long())
        samples.append(sample)
    return torch.randn(2, 3, size, size, generator=generator), samples


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=pytest.mark.smoke) if n in SMOKE else n for n in SUPPORTED_HEADS]
    + ['SegmenterMaskTransformerHead'],
)
def test_head(name):
    if name not in NEEDS_OPS or has_ops:
        check_head(name)
    else:
        with pytest.raises(RuntimeError, match='install full mmcv'):
            check_head(name)
    ANSWERS[name] = 'yes, with full mmcv: it calls a compiled op' if name in NEEDS_OPS else 'yes'


def check_head(name):
    torch.manual_seed(0)
    stock, size = model_config(name)
    plain = MODELS.build(stock)
    model = MODELS.build(to_ltmi(stock)).train()
    assert any(type(head).__name__ == f'LTMI{name}' for _, head in heads_of(model))

    extra = set(model.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) <= set(model.state_dict())
    assert all('.contrast.' in key or '.score_reader.' in key for key in extra)

    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for step in range(2):
        inputs, samples = batch(size, 2, step)
        losses = model.loss(inputs, samples)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        assert all(value.isfinite().all() for value in losses.values())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    contrasted = [head for _, head in heads_of(model) if head.contrast is not None]
    assert contrasted and all(head.contrast.queue.fill() > 0 for head in contrasted)

    trained = network_fingerprint(model)
    assert trained not in ('', network_fingerprint(plain))
    missing, _ = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing and network_fingerprint(plain) == trained
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad():
        ours = model.eval().encode_decode(inputs, metas)
        raw = plain.eval().encode_decode(inputs, metas)
    head = [head for role, head in heads_of(model) if role == 'decode_head'][-1]
    shift = head.score_reader.shift()
    prior = torch.tensor(counts_of(head))
    torch.testing.assert_close(shift, (prior / prior.sum()).log(), atol=1e-3, rtol=1e-3)
    if name != 'LightHamHead':  # its matrix decomposition starts from random bases
        torch.testing.assert_close(ours, raw + shift.view(1, -1, 1, 1), atol=2e-3, rtol=1e-3)
    if name not in ('LightHamHead', 'PointHead'):  # the latter refines raw scores
        plain.load_state_dict(to_stock(model.state_dict()), strict=True)
        with torch.no_grad():
            stock = plain.encode_decode(inputs, metas)
        torch.testing.assert_close(stock, ours, atol=1e-3, rtol=1e-3)
    model.load_state_dict(plain.state_dict(), strict=False)  # without a reader: of a stock head
    assert not head.score_reader.natural_shift.any()


def test_k_net():
    torch.manual_seed(0)
    stock, size = model_config('IterativeDecodeHead')
    changed = copy.deepcopy(stock)
    head = changed.decode_head
    loss = dict(type='LogitAdjustedLoss', class_prior=counts_of(head.kernel_generate_head))
    head.kernel_generate_head.loss_decode = loss
    head.update(type='LTMIIterativeDecodeHead', contrast=dict(queue=dict(size=2048)))
    model, plain = MODELS.build(changed).train(), MODELS.build(stock)
    inputs, samples = batch(size, 2, 0)
    losses = model.loss(inputs, samples)
    total(losses).backward()
    stages = [key for key in losses if key.startswith('decode.loss_ltmi.s')]
    assert len(stages) == 4 and losses['decode.loss_contrast'] > 0
    assert all(value.isfinite().all() for value in losses.values())
    missing, _ = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad():
        ours = model.eval().encode_decode(inputs, metas)
        raw = plain.eval().encode_decode(inputs, metas)
        shift = model.decode_head.score_reader.shift()
        # The loss of a stage is that of its scores and the prior.
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
        model.train()
        scores = model.decode_head(model.extract_feat(inputs))
        upsampled = torch.nn.functional.interpolate(scores[-1], (size, size), mode='bilinear')
        wanted = torch.nn.functional.cross_entropy(upsampled + shift.view(1, -1, 1, 1), labels)
        found = model.decode_head.loss_by_feat(scores, samples)
    assert shift.min() < -1
    torch.testing.assert_close(ours, raw + shift.view(1, -1, 1, 1), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(found['loss_ltmi.s3'], wanted, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match='it has no stock form'):
        to_stock(model.state_dict())
    ANSWERS['IterativeDecodeHead'] = 'yes, but it has no stock form: [masks.md](masks.md)'


@pytest.mark.parametrize('name', ['MaskFormerHead', 'Mask2FormerHead'])
def test_mask_classifiers(name):
    assert issubclass(MODELS.get(f'LTMI{name}'), getattr(decode_heads, name))
    ANSWERS[name] = 'yes, with mmdet: [masks.md](masks.md), tried at toy size'


@pytest.mark.parametrize('name', UNSUPPORTED_HEADS)
def test_others_say_why(name):
    stock, _ = model_config(name)
    assert name in [head.type for _, head in heads_of(stock)]
    with pytest.raises(TypeError, match=f'LTMI{name} does not exist: ') as error:
        MODELS.build(dict(type=f'LTMI{name}'))
    ANSWERS[name] = f'no: {str(error.value).split(": ", 1)[1]}'


def test_every_head_of_mmseg_has_an_answer():
    # KernelUpdateHead is a part of IterativeDecodeHead.
    heads = {n for n in decode_heads.__all__ if n.endswith('Head')} - {'KernelUpdateHead'}
    known = {*SUPPORTED_HEADS, *OWN_FORMS, *UNSUPPORTED_HEADS}
    assert heads == known == set(FILES)


def test_the_table_in_the_docs():
    if set(ANSWERS) != set(FILES):
        pytest.skip('only a run of all heads makes the whole table')
    lines = ['| head | LTMI form | tried with |', '| --- | --- | --- |']
    lines += [f'| {n} | {ANSWERS[n]} | `{FILES[n]}` |' for n in sorted(FILES, key=str.lower)]
    above, mark, _ = TABLE.read_text().partition('<!-- table -->\n')
    made = f'{above}{mark}' + '\n'.join(lines) + '\n'
    if os.environ.get('LTMI_WRITE_DOCS'):
        TABLE.write_text(made)
    assert TABLE.read_text() == made, 'run this file with LTMI_WRITE_DOCS=1'


def test_users_own_head():
    @ltmi_head
    @MODELS.register_module(force=True)
    class TinyHead(decode_heads.FCNHead):
        pass

    own = dict(type='LTMITinyHead', in_channels=16, channels=8, num_classes=4, loss_decode=LOSS)
    head = MODELS.build(own)
    assert isinstance(head, TinyHead) and head.contrast is None
    with pytest.raises(TypeError, match='BaseDecodeHead'):
        ltmi_head(torch.nn.Linear)
