"""Configs with LTMI switched on: of every family of mmsegmentation, and of configs made here."""

from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead, PointHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis import switch_on as switch_on_api
from mmseg_ltmi.apis.switch_on import SwitchOn, SwitchOnError, main, switch_on
from mmseg_ltmi.core.losses import LTMILoss
from mmseg_ltmi.models.decode_heads import (
    OWN_FORMS,
    SUPPORTED_HEADS,
    UNSUPPORTED_HEADS,
    LTMIHeadMixin,
)

STOCK = Path(mmseg.__file__).parent / '.mim/configs'
FAMILIES = {
    'SegmenterMaskTransformerHead': 'segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py',
    'MaskFormerHead': 'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    'Mask2FormerHead': 'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    'ANNHead': 'ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'APCHead': 'apcnet/apcnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'ASPPHead': 'deeplabv3/deeplabv3_r101-d16-mg124_4xb2-40k_cityscapes-512x1024.py',
    'CCHead': 'ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'DAHead': 'danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'DDRHead': 'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py',
    'DMHead': 'dmnet/dmnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'DNLHead': 'dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'DPTHead': 'dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py',
    'DepthwiseSeparableASPPHead': 'deeplabv3plus/deeplabv3plus_r18-d8_4xb4-80k_loveda-512x512.py',
    'DepthwiseSeparableFCNHead': 'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py',
    'EMAHead': 'emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    'EncHead': 'encnet/encnet_r50-d8_4xb4-20k_voc12aug-512x512.py',
    'FCNHead': 'unet/unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64.py',
    'FPNHead': 'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
    'GCHead': 'gcnet/gcnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'ISAHead': 'isanet/isanet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'LRASPPHead': 'mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024.py',
    'LightHamHead': 'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py',
    'NLHead': 'nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'OCRHead': 'ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024.py',
    'PIDHead': 'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
    'PSAHead': 'psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'PSPHead': 'pspnet/pspnet_r50-d8_4xb4-40k_pascal-context-480x480.py',
    'PointHead': 'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py',
    'SETRMLAHead': 'setr/setr_vit-l-mla_8xb1-160k_ade20k-512x512.py',
    'SETRUPHead': 'setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768.py',
    'STDCHead': 'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
    'SegformerHead': 'segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py',
    'UPerHead': 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
}
"""A training config of mmsegmentation for each head that has an LTMI form."""

REFUSED = {
    'IterativeDecodeHead': 'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
    'SideAdapterCLIPHead': 'san/san-vit-b16_coco-stuff164k-640x640.py',
    'VPDDepthHead': 'vpd/vpd_sd_4xb8-25k_nyu-480x480.py',
}
STEPS = {'DDRHead', 'FCNHead', 'OCRHead', 'PIDHead', 'PointHead', 'STDCHead', 'SegformerHead'}
"""Families whose model also takes a training step."""

UPERNET = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
FASTSCNN = f'mmseg::{FAMILIES["DepthwiseSeparableFCNHead"]}'


def heads_of(model):
    """(role, head) of every head, as configs or as modules."""
    for role in ('decode_head', 'auxiliary_head'):
        heads = model.get(role) if isinstance(model, dict) else getattr(model, role, None)
        several = isinstance(heads, (list, torch.nn.ModuleList))
        for head in heads if several else [heads] * (heads is not None):
            yield role, head


def build(cfg):
    """The model, small and without pretrained weights."""
    model = cfg.model
    model.pretrained = None
    model.backbone.init_cfg = None
    if model.backbone.type == 'VisionTransformer':
        model.backbone.update(num_layers=4, out_indices=(0, 1, 2, 3))
    if model.backbone.type == 'mmpretrain.ConvNeXt':  # mmpretrain is not needed for the heads
        model.backbone = dict(type='MixVisionTransformer', num_layers=[1, 1, 1, 1])
    return revert_sync_batchnorm(MODELS.build(model))


def load(text, folder, name='config.py'):
    """The Config of a text; the modules that it imports need not be there."""
    file = folder / name
    file.write_text(text)
    return Config.fromfile(file, import_custom_modules=False)


def take_step(model, size=64):
    for module in model.modules():
        if getattr(module, 'needs_class_prior', False):  # what ClassPriorHook does
            module.set_class_prior([1] * model.num_classes)
    samples = []
    for _ in range(2):
        labels = torch.randint(0, model.num_classes, (1, size, size))
        sample = SegDataSample(metainfo=dict(img_path='x.png', img_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=(labels == 0).long())
        samples.append(sample)
    losses = model.train().loss(torch.randn(2, 3, size, size), samples)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite() and any('loss_contrast' in key for key in losses)


def test_there_is_a_config_for_every_head():
    assert set(FAMILIES) | set(REFUSED) == {*SUPPORTED_HEADS, *OWN_FORMS, *UNSUPPORTED_HEADS}
    assert set(REFUSED) == {*UNSUPPORTED_HEADS, 'IterativeDecodeHead'}


@pytest.mark.parametrize('name', FAMILIES)
def test_every_family_is_switched_on(name, tmp_path):
    if name in ('MaskFormerHead', 'Mask2FormerHead'):
        pytest.importorskip('mmdet.models', reason='needs mmdet')
    torch.manual_seed(0)
    config = f'mmseg::{FAMILIES[name]}'
    if config == FASTSCNN:
        config = write(tmp_path, SOFTMAX_FASTSCNN)
    made = switch_on(config)
    cfg = load(made.text, tmp_path)
    assert all(len(line) <= 100 for line in made.text.splitlines() if '_base_ = ' not in line)
    assert cfg.custom_imports.imports[0] == 'mmseg_ltmi'
    stock = load(f'_base_ = {str(config)!r}\n', tmp_path, 'stock.py')
    model = build(cfg)

    pairs = list(zip(heads_of(model), heads_of(stock.model), strict=True))
    used = set()
    for (role, head), (_, before) in pairs:
        used |= {c.__name__ for c in type(head).__mro__}
        losses = (
            head.loss_decode
            if isinstance(head.loss_decode, torch.nn.ModuleList)
            else [head.loss_decode]
        )
        old = before.get('loss_decode') or ConfigDict(type='CrossEntropyLoss')
        for loss, was in zip(losses, old if isinstance(old, list) else [old], strict=True):
            softmax = was.type in ('CrossEntropyLoss', 'OhemCrossEntropy')
            softmax = softmax and not was.get('use_sigmoid')
            assert isinstance(loss, LTMILoss) == softmax
            assert getattr(loss, 'loss_weight', 1.0) == was.get('loss_weight', 1.0)
        if role == 'auxiliary_head':
            assert not isinstance(head, LTMIHeadMixin)
    assert name in used
    decoders = [head for role, head in heads_of(model) if role == 'decode_head']
    assert isinstance(decoders[-1], LTMIHeadMixin)
    contrasts = [head for head in decoders if getattr(head, 'contrast', None) is not None]
    assert len(contrasts) == 1 and not isinstance(contrasts[0], PointHead)

    hooks = [hook.type for hook in cfg.get('custom_hooks') or []]
    priors = [p for _, head in heads_of(model) for p in head.modules() if isinstance(p, LTMILoss)]
    assert all(p.needs_class_prior == ('ClassPriorHook' in hooks) for p in priors)
    if name in STEPS:
        take_step(model)


@pytest.mark.parametrize('name', REFUSED)
def test_a_head_without_an_ltmi_form_is_an_error(name):
    with pytest.raises(
        SwitchOnError, match=f'decode_head: {name} (has no LTMI form: .*; |.*by hand)|regresses'
    ):
        switch_on(f'mmseg::{REFUSED[name]}')


# What the new file looks like


def test_the_simple_case():
    made = switch_on(UPERNET)
    assert made == SwitchOn(
        """\
_base_ = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmseg_ltmi'])
ltmi_loss = dict(type='LTMILoss', class_prior='ade20k')
model = dict(
    decode_head=dict(type='LTMIUPerHead', loss_decode=ltmi_loss, contrast=dict()),
    auxiliary_head=dict(loss_decode=ltmi_loss))
""",
        [],
    )
    assert switch_on_api is switch_on


def test_a_cascade():
    made = switch_on('mmseg::ocrnet/ocrnet_hr48_4xb2-80k_cityscapes-512x1024.py')
    assert made.notes == []
    assert made.text.splitlines()[3:] == [
        "# A list replaces the base's list, so the heads are taken from it and changed here.",
        'decode_head = _base_.model.decode_head',
        'decode_head[0].loss_decode.update(ltmi_loss)',
        "decode_head[1].update(type='LTMIOCRHead', contrast=dict())",
        'decode_head[1].loss_decode.update(ltmi_loss)',
        'model = dict(decode_head=decode_head)',
    ]


def test_pointrend_contrasts_in_the_coarse_head():
    made = switch_on('mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py')
    assert "decode_head[0].update(type='LTMIFPNHead', contrast=dict())\n" in made.text
    assert "decode_head[1].update(type='LTMIPointHead')\n" in made.text


def test_several_losses():
    made = switch_on(f'mmseg::{FAMILIES["PIDHead"]}')
    assert (
        """\
        loss_decode=[
            dict(**ltmi_loss, loss_weight=0.4),
            ltmi_loss,
            _base_.model.decode_head.loss_decode[2],
            ltmi_loss],
"""
        in made.text
    )
    assert made.notes == [
        'decode_head.loss_decode[0]: CrossEntropyLoss becomes LTMILoss and loses its class_weight '
        '(LTMILoss weighs the classes by the prior)',
        'decode_head.loss_decode[1]: OhemCrossEntropy becomes LTMILoss and loses its choice of '
        'hard pixels and its class_weight (LTMILoss weighs the classes by the prior)',
        'decode_head.loss_decode[2] stays as it is: BoundaryLoss is no cross-entropy, to whose '
        'scores a class prior could be added',
        made.notes[1].replace('[1]', '[3]'),
    ]


def test_several_auxiliary_heads():
    made = switch_on(f'mmseg::{FAMILIES["STDCHead"]}')
    assert 'auxiliary_head[0].loss_decode.update(ltmi_loss)\n' in made.text
    assert 'auxiliary_head[1].loss_decode.update(ltmi_loss)\n' in made.text
    assert 'auxiliary_head[2]' not in made.text
    assert made.notes == ['auxiliary_head[2] stays as it is: it has num_classes=2, not 19']


def test_heads_in_a_list_that_leave_their_loss_to_mmsegmentation(tmp_path):
    head = HEAD.format(classes=19, loss='None').replace(',\n    loss_decode=None', '')
    heads = f'[{HEAD.format(classes=19, loss=CE)}, {head}]'
    notes, cfg = switched(tmp_path, small(heads).replace('EncoderDecoder', 'CascadeEncoderDecoder'))
    assert cfg.model.decode_head[1].loss_decode == cfg.ltmi_loss


def test_the_base_modules_are_imported_too():
    text = switch_on(f'mmseg::{FAMILIES["UPerHead"]}').text
    assert "custom_imports = dict(imports=['mmseg_ltmi', 'mmpretrain.models'])\n" in text


def test_a_sampler_of_hard_pixels_stays():
    made = switch_on(f'mmseg::{FAMILIES["ASPPHead"]}')
    assert 'sampler' not in made.text and made.notes == []


# Small configs

HEAD = """dict(
    type='FCNHead', in_channels=8, in_index=0, channels=4, num_classes={classes}, num_convs=1,
    loss_decode={loss})"""
CE = "dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)"
SOFTMAX_FASTSCNN = f"""
_base_ = {FASTSCNN!r}
model = dict(decode_head=dict(loss_decode=dict(use_sigmoid=False)))
"""


def small(head=None, dataset="dict(type='CityscapesDataset')", classes=19, loss=CE, more=''):
    head = head or HEAD.format(classes=classes, loss=loss)
    return (
        f"model = dict(type='EncoderDecoder', backbone=dict(type='UNet'), decode_head={head})\n"
        f'train_dataloader = dict(dataset={dataset})\n{more}'
    )


def write(folder, text, name='given.py'):
    file = folder / name
    file.write_text(text)
    return file


def switched(folder, text, class_prior=None):
    """The note and the loaded Config of a config's text."""
    made = switch_on(write(folder, text), class_prior)
    return made.notes, load(made.text, folder)


CAMVID = "dict(type='mmseg.CamVidDataset')"


@pytest.mark.parametrize(
    ('dataset', 'classes', 'prior'),
    [
        (CAMVID, 11, 'camvid'),
        ("dict(type='NYUv2Dataset')", 39, 'nyuv2'),
        (f"dict(type='RepeatDataset', times=9, dataset={CAMVID})", 11, 'camvid'),
        (f"dict(type='ConcatDataset', datasets=[{CAMVID}, {CAMVID}])", 11, 'camvid'),
        (f"dict(type='ConcatDataset', datasets=[{CAMVID}, dict(type='Own')])", 11, None),
        ("dict(type='ADE20KDataset', metainfo=dict(classes=['sky', 'wall']))", 2, None),
        ('dict()', 19, None),
    ],
)
def test_the_prior_of_the_data_set(dataset, classes, prior, tmp_path):
    notes, cfg = switched(tmp_path, small(dataset=dataset, classes=classes))
    assert cfg.ltmi_loss.get('class_prior') == prior
    assert cfg.get('custom_hooks') == (None if prior else [dict(type='ClassPriorHook')])
    assert (
        [note.split(' for ')[0] for note in notes] == []
        if prior
        else ['no class prior is published']
    )


BALANCED = f"dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset={CAMVID})"
RARE = f"dict(type='RareClassDataset', dataset={CAMVID})"
PASTED = f"""dict(
    type='MultiImageMixDataset', dataset={CAMVID},
    pipeline=[dict(type='RareClassPaste'), dict(type='PackSegInputs')])"""
UNEVEN = f"""dict(
    type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=3, dataset={CAMVID}), {CAMVID}]
)"""


@pytest.mark.parametrize(
    ('dataset', 'by', 'test_prior'),
    [
        (RARE, 'RareClassDataset', "='camvid'"),
        (PASTED, 'RareClassPaste', "='camvid'"),
        (f"dict(type='RepeatDataset', times=2, dataset={PASTED})", 'RareClassPaste', "='camvid'"),
        (f"dict(type='RareClassDataset', dataset={PASTED})", 'RareClassDataset, Rare', "='camvid'"),
        (BALANCED, 'ClassBalancedDataset', "='camvid'"),
        (UNEVEN, 'ConcatDataset', "='camvid'"),
        (RARE.replace('CamVid', 'Own'), 'RareClassDataset', ', the raw prior of mmseg-ltmi count'),
    ],
)
@pytest.mark.parametrize('is_given', [False, True])
def test_a_train_set_that_is_resampled(dataset, by, test_prior, is_given, tmp_path):
    """Its prior is counted behind the pipeline, and the raw one is that of the images of use."""
    given = 'camvid' if is_given else None
    notes, cfg = switched(tmp_path, small(dataset=dataset, classes=11), given)
    assert cfg.ltmi_loss.get('class_prior') == given
    assert cfg.get('custom_hooks') == (None if is_given else [dict(type='ClassPriorHook')])
    assert len(notes) == 2 - is_given and f'give it test_prior{test_prior}' in notes[-1]
    assert is_given or notes[0].startswith(by) and '--as-trained' in notes[0]


def test_a_mask_classifier_has_no_test_prior(tmp_path):
    base = STOCK / FAMILIES['MaskFormerHead']
    text = f"""
_base_ = {str(base)!r}
inner = dict(type='ADE20KDataset', pipeline=[])
train_dataloader = dict(
    dataset=dict(_delete_=True, type='RareClassDataset', dataset=inner))
"""
    made = switch_on(write(tmp_path, text))
    assert made.notes[1].endswith(
        'used on others, choose a tau on such images with mmseg-ltmi choose'
    )


def test_the_hooks_of_the_base_stay(tmp_path):
    hook = "dict(type='EMAHook')"
    text = small(dataset="dict(type='Own')", more=f'custom_hooks = [{hook}]\n')
    made = switch_on(write(tmp_path, text))
    assert "custom_hooks = [*_base_.custom_hooks, dict(type='ClassPriorHook')]\n" in made.text
    cfg = load(made.text, tmp_path)
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'ClassPriorHook']
    assert 'custom_hooks' not in switch_on(write(tmp_path, text.replace('EMA', 'ClassPrior'))).text
    assert 'Own' in made.notes[0] and '--class-prior' in made.notes[0]


def test_a_file_as_class_prior(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ClassPrior([3, 2, 1]).save('prior.json')
    text = small(dataset="dict(type='Own')", classes=3)
    notes, cfg = switched(tmp_path, text, 'prior.json')
    assert cfg.ltmi_loss.class_prior == str(tmp_path / 'prior.json') and notes == []
    with pytest.raises(SwitchOnError, match='num_classes=4.*prior.json has 3 classes'):
        switched(tmp_path, text.replace('num_classes=3', 'num_classes=4'), 'prior.json')
    with pytest.raises(SwitchOnError, match='num_classes=3.*ade20k has 150 classes'):
        switched(tmp_path, text, 'ade20k')
    with pytest.raises(FileNotFoundError, match="no class prior 'none.json'"):
        switched(tmp_path, text, 'none.json')


@pytest.mark.parametrize(
    ('loss', 'result', 'note'),
    [
        (CE, dict(use_sigmoid=False, loss_weight=0.4), ''),
        (
            "dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=2.0, reduction='sum')",
            dict(loss_weight=2.0),
            "loses reduction='sum'",
        ),
        (
            "dict(type='CrossEntropyLoss', class_weight=[1] * 19, avg_non_ignore=False)",
            dict(avg_non_ignore=False),
            'loses its class_weight',
        ),
        (
            "dict(type='OhemCrossEntropy', thres=0.9, ignore_label=7)",
            dict(ignore_index=7),
            'loses its choice of hard pixels decode_head.loss_decode has ignore_label=7, '
            'decode_head ignore_index=255: give decode_head ignore_index=7',
        ),
    ],
)
def test_a_loss(loss, result, note, tmp_path):
    notes, cfg = switched(tmp_path, small(loss=loss))
    assert cfg.model.decode_head.loss_decode == {**cfg.ltmi_loss, **result}
    assert note in ' '.join(notes)
    assert isinstance(MODELS.build(cfg.model.decode_head).loss_decode, LTMILoss)
    # The same in a list of heads.
    head = HEAD.format(classes=19, loss=loss)
    text = small(head=f'[{head}, {head}]').replace(
        "type='EncoderDecoder'", "type='CascadeEncoderDecoder', num_stages=2"
    )
    _, cascade = switched(tmp_path, text)
    heads = cascade.model.decode_head
    assert [h.loss_decode for h in heads] == [cfg.model.decode_head.loss_decode] * 2
    assert [h.type for h in heads] == ['FCNHead', 'LTMIFCNHead']


def test_no_loss_means_cross_entropy(tmp_path):
    text = small().replace(f'loss_decode={CE}', '')
    notes, cfg = switched(tmp_path, text)
    assert cfg.model.decode_head.loss_decode == cfg.ltmi_loss and notes == []


def test_other_losses_stay(tmp_path):
    loss = f"[{CE}, dict(type='DiceLoss', loss_weight=3.0), dict(type='LovaszLoss')]"
    notes, cfg = switched(tmp_path, small(loss=loss))
    ltmi, dice, lovasz = cfg.model.decode_head.loss_decode
    assert ltmi == {**cfg.ltmi_loss, 'loss_weight': 0.4}
    assert dice == dict(type='DiceLoss', loss_weight=3.0) and lovasz == dict(type='LovaszLoss')
    assert [note.split(' stays')[0][-3:] for note in notes] == ['[1]', '[2]']


def test_sigmoid_losses(tmp_path):
    with pytest.raises(SwitchOnError, match='decode_head has no loss.*use_sigmoid=True.*False'):
        switch_on(FASTSCNN)
    made = switch_on(write(tmp_path, SOFTMAX_FASTSCNN))
    assert "type='LTMIDepthwiseSeparableFCNHead', loss_decode=ltmi_loss" in made.text
    assert [note.split(' stays')[0] for note in made.notes] == [
        'auxiliary_head[0].loss_decode',
        'auxiliary_head[1].loss_decode',
    ]


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'given').mkdir()
    write(tmp_path / 'given', small())
    main('given/given.py', None, 'made/in/here.py')
    cfg = Config.fromfile('made/in/here.py')
    assert cfg.model.decode_head.type == 'LTMIFCNHead'
    monkeypatch.chdir('/')
    assert Config.fromfile(tmp_path / 'made/in/here.py').to_dict() == cfg.to_dict()


def test_own_heads(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = """
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from mmseg_ltmi.models.decode_heads import ltmi_head

@ltmi_head
@MODELS.register_module()
class WithForm(FCNHead): ...

@MODELS.register_module()
class WithoutForm(FCNHead): ...
"""
    (tmp_path / 'heads_for_switch_on.py').write_text(source)
    more = "custom_imports = dict(imports=['heads_for_switch_on'])\n"
    text = small(more=more).replace('FCNHead', 'WithForm')
    _, cfg = switched(tmp_path, text)
    assert cfg.model.decode_head.type == 'LTMIWithForm'
    assert cfg.custom_imports.imports == ['mmseg_ltmi', 'heads_for_switch_on']
    with pytest.raises(SwitchOnError, match='WithoutForm has no LTMI form.*@ltmi_head'):
        switched(tmp_path, text.replace('WithForm', 'WithoutForm'))
    with pytest.raises(SwitchOnError, match="decode_head.type 'Unknown' is not registered"):
        switched(tmp_path, text.replace('WithForm', 'Unknown'))
    missing = text.replace('heads_for', 'no_heads_for').replace('WithForm', 'Unknown')
    with pytest.raises(SwitchOnError, match='could not import no_heads_for_switch_on'):
        switched(tmp_path, missing)
    assert issubclass(MODELS.get('LTMIWithForm'), FCNHead)


def test_a_config_of_the_new_style(tmp_path):
    text = small().replace("type='EncoderDecoder'", 'type=EncoderDecoder')
    text = text.replace("type='FCNHead'", 'type=FCNHead')
    text = text.replace("type='CityscapesDataset'", 'type=CityscapesDataset')
    text = text.replace("type='CrossEntropyLoss'", 'type=CrossEntropyLoss')
    text = (
        'from mmseg.datasets import CityscapesDataset\n'
        'from mmseg.models import CrossEntropyLoss, EncoderDecoder, FCNHead\n' + text
    )
    (tmp_path / 'made').mkdir()
    made = switch_on(write(tmp_path, text))
    (tmp_path / 'given.py').unlink()  # the new one holds all of it
    cfg = load(made.text, tmp_path / 'made')
    assert cfg.model.decode_head.type == 'LTMIFCNHead' and cfg.model.decode_head.contrast == {}
    assert cfg.ltmi_loss.class_prior == 'cityscapes'
    assert isinstance(MODELS.build(cfg.model.decode_head).loss_decode, LTMILoss)
    assert len(made.notes) == 1 and 'new style' in made.notes[0]


# Errors


def test_single_scores(tmp_path):
    for key in ('num_classes=1', 'num_classes=2, out_channels=1'):
        text = small(classes=2, dataset="dict(type='Own')").replace('num_classes=2', key)
        with pytest.raises(SwitchOnError, match='gives a single score.*Set num_classes=2'):
            switched(tmp_path, text)
    head = HEAD.format(classes=1, loss=CE)
    text = small(more=f'model.update(auxiliary_head={head})\n')
    notes, cfg = switched(tmp_path, text)
    assert cfg.model.auxiliary_head.loss_decode.type == 'CrossEntropyLoss'
    assert 'auxiliary_head stays as it is: it has a single score' in notes[0]


def test_a_prior_of_other_classes(tmp_path):
    with pytest.raises(
        SwitchOnError, match='num_classes=20, but the class prior cityscapes has 19'
    ):
        switched(tmp_path, small(classes=20))


def test_other_segmentors(tmp_path):
    text = small()
    with pytest.raises(SwitchOnError, match='model.type is MultimodalEncoderDecoder: LTMI heads'):
        switched(tmp_path, text.replace('EncoderDecoder', 'MultimodalEncoderDecoder'))
    with pytest.raises(SwitchOnError, match="model.type 'Unknown' is not registered"):
        switched(tmp_path, text.replace('EncoderDecoder', 'Unknown'))
    _, cfg = switched(tmp_path, text.replace('EncoderDecoder', 'LTMIEncoderDecoder'))
    assert cfg.model.decode_head.type == 'LTMIFCNHead'
    with pytest.raises(SwitchOnError, match='has no model'):
        switched(tmp_path, 'a = 1\n')
    with pytest.raises(SwitchOnError, match='has no decode_head'):
        switched(tmp_path, "model = dict(type='EncoderDecoder')\n")


def test_a_config_that_is_switched_on(tmp_path):
    made = switch_on(UPERNET)
    with pytest.raises(SwitchOnError, match='switched on already: decode_head is LTMIUPerHead'):
        switched(tmp_path, made.text)
    text = small(loss="dict(type='LogitAdjustedLoss')")
    with pytest.raises(SwitchOnError, match='decode_head.loss_decode is LogitAdjustedLoss'):
        switched(tmp_path, text)


def test_no_such_config(tmp_path):
    with pytest.raises(FileNotFoundError, match='no config none.py: give a path'):
        switch_on('none.py')
    with pytest.raises(FileNotFoundError):
        switch_on('mmseg::upernet/none.py')


def test_the_command(tmp_path, capsys):
    out = tmp_path / 'out.py'
    main(f'mmseg::{FAMILIES["STDCHead"]}', None, str(out))
    assert capsys.readouterr().out == (
        'note: auxiliary_head[2] stays as it is: it has num_classes=2, not 19\n'
        f'wrote {out}; train it with\n    mmseg-ltmi train {out}\n'
    )
    with pytest.raises(FileExistsError, match='--force'):
        main(UPERNET, None, out)
    main(UPERNET, None, out, force=True)
    assert out.read_text() == switch_on(UPERNET).text
    given = write(tmp_path, small())
    with pytest.raises(ValueError, match='is the given config'):
        main(str(given), None, str(given), force=True)
    with pytest.raises(ValueError, match='must end in .py'):
        main(UPERNET, None, 'out.json')


def test_a_folder_with_config_and_prior_can_be_moved(tmp_path):
    (tmp_path / 'mine').mkdir()
    given = write(tmp_path / 'mine', small())
    num_classes = Config.fromfile(given).model.decode_head.num_classes
    ClassPrior([9.0, *[1.0] * (num_classes - 1)]).save(tmp_path / 'mine' / 'prior.json')
    main(str(given), str(tmp_path / 'mine' / 'prior.json'), tmp_path / 'mine' / 'ltmi.py')
    (tmp_path / 'mine').rename(tmp_path / 'moved')
    text = (tmp_path / 'moved' / 'ltmi.py').read_text()
    assert str(tmp_path) not in text
    cfg = Config.fromfile(tmp_path / 'moved' / 'ltmi.py')
    model = MODELS.build(cfg.model)
    expected = ClassPrior.load(tmp_path / 'moved' / 'prior.json').log_probs()
    torch.testing.assert_close(model.decode_head.log_prior, expected)
