"""Mask classifiers of mmsegmentation's own configs at toy size."""

from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config
from tiny import COUNTS, batch

NAMES = ('MaskFormerHead', 'Mask2FormerHead')
CONFIGS = Path(mmseg.__file__).parent / '.mim/configs'
FILES = {
    'MaskFormerHead': 'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    'Mask2FormerHead': 'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    'SegmenterMaskTransformerHead': '_base_/models/segmenter_vit-b16_mask.py',
    'IterativeDecodeHead': 'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
}
PRIOR = dict(pixel_counts=COUNTS, image_counts=[10, 9, 4, 2])
LOSS = dict(type='LogitAdjustedLoss', class_prior=PRIOR)
CONTRAST = dict(projector=dict(out_channels=8), queue=dict(size=104), sampler=dict(num_samples=24))
WIDTH = 16


def needs_mmdet():
    return pytest.importorskip('mmdet.models', reason="needs mmdet: pip install 'mmseg_ltmi[mask]'")


def narrow(config, width=WIDTH):
    """A transformer's config with few channels and heads, and two layers."""
    if isinstance(config, list):
        return [narrow(part, width) for part in config]
    if not isinstance(config, dict):
        return config
    small = dict(
        embed_dims=width, num_heads=2, feedforward_channels=2 * width, num_feats=width // 2,
        feat_channels=width, out_channels=width, num_layers=2, num_points=4, num_groups=4,
    )  # fmt: skip
    for key, value in config.items():
        config[key] = small[key] if key in small and isinstance(value, int) else narrow(value)
    return config


def mask_segmentor(name='Mask2FormerHead', ltmi=True, head=None, queries=6, classes=4, **model):
    """Config of a segmentor of one of the stock heads, over a ResNet-18."""
    needs_mmdet()
    cfg = Config.fromfile(CONFIGS / FILES[name], import_custom_modules=False).model
    cfg.data_preprocessor.size = (64, 64)
    cfg.backbone.update(depth=18, init_cfg=None, norm_cfg=dict(type='BN'))
    found = cfg.decode_head
    points = found.train_cfg.get('num_points')
    narrow(found)
    if points:
        found.train_cfg.num_points = 64
    found.update(in_channels=[64, 128, 256, 512], num_classes=classes, num_queries=queries)
    found.loss_cls.class_weight = [1.0] * classes + [0.1]
    if ltmi:
        found.update(type=f'LTMI{name}', loss_decode=LOSS, contrast=CONTRAST)
    for part, options in ((found, head or {}), (cfg, model)):
        for key, value in options.items():  # update() would merge it into what is there
            part[key] = value
    return cfg


def any_segmentor(name, classes=4, loss=LOSS):
    """Config of one with any of the LTMI heads in FILES."""
    if name in NAMES:
        return mask_segmentor(name, head=dict(loss_decode=loss), classes=classes)
    cfg = Config.fromfile(CONFIGS / FILES[name], import_custom_modules=False).model
    cfg.update(pretrained=None, auxiliary_head=None, test_cfg=dict(mode='whole'))
    head = narrow(cfg.decode_head)
    head.update(type=f'LTMI{name}', contrast=CONTRAST)
    if name == 'IterativeDecodeHead':
        cfg.backbone.update(depth=18, norm_cfg=dict(type='BN'))
        for stage in head.kernel_update_head:
            stage.update(in_channels=WIDTH, num_classes=classes)
            stage.kernel_updator_cfg.in_channels = WIDTH
        head = head.kernel_generate_head
        head.update(in_channels=512, norm_cfg=dict(type='BN'))
    else:
        cfg.data_preprocessor.size = (64, 64)
        cfg.backbone.update(img_size=(64, 64), num_layers=1, embed_dims=WIDTH, num_heads=2)
        head.in_channels = WIDTH
    head.update(channels=WIDTH, num_classes=classes, loss_decode=loss)
    return cfg


def mask_batch(seed=0, number=2, size=64):
    """A batch of which each image has a few classes, in blocks."""
    inputs, samples = batch(seed, number, size, ori_shape=(size, size), pad_shape=(size, size))
    for i, sample in enumerate(samples):
        labels = sample.gt_sem_seg.data
        labels[:, :, : size // 2], labels[:, :, size // 2 :] = (i + seed) % 4, (i + seed + 1) % 4
        labels[:, : size // 4] = 255
    return inputs, samples
