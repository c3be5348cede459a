"""A small segmentor, batches for it, and a short run."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

ROOT = Path(__file__).parents[1]
COUNTS = [80, 15, 4, 1]
LOSS = dict(type='LogitAdjustedLoss', class_prior=COUNTS)
CONTRAST = dict(
    class_prior=COUNTS,
    projector=dict(out_channels=16),
    queue=dict(size=64),
    sampler=dict(num_samples=48),
)


def segmentor(depth=18, channels=8, ltmi=True, index=1, head=None, **model):
    """Config of an FCN; its features have stride 8 (``index`` 1) or 4 (0)."""
    decode_head = dict(
        type='LTMIFCNHead' if ltmi else 'FCNHead', in_channels=(64, 128)[index], in_index=index,
        channels=channels, num_classes=len(COUNTS), num_convs=1, concat_input=False,
        dropout_ratio=0, norm_cfg=dict(type='BN'), loss_decode=LOSS,
    )  # fmt: skip
    if ltmi:
        decode_head['contrast'] = CONTRAST
    if depth > 34:
        decode_head['in_channels'] *= 4
    config = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[120, 110, 100], std=[60, 50, 40], size=(64, 64)
        ),
        backbone=dict(
            type='ResNetV1c', depth=depth, num_stages=2, strides=(1, 2), dilations=(1, 1),
            out_indices=(0, 1), norm_cfg=dict(type='BN'),
        ),
        decode_head={**decode_head, **(head or {})},
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )  # fmt: skip
    return {**config, **model}


def batch(seed=0, number=2, size=64, **meta):
    """Images that are normalized already, and labels of which some are ignored."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(number):
        labels = torch.randint(0, len(COUNTS), (1, size, size), generator=generator)
        labels[:, :5] = 255
        sample = SegDataSample(metainfo=dict(img_path='x.png', img_shape=(size, size), **meta))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return torch.randn(number, 3, size, size, generator=generator), samples


def total(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


def demo_run(folder, steps, **model):
    """Config of a run of the demo on a few tiny images; ``model`` changes the segmentor's."""
    cfg = Config.fromfile(ROOT / 'configs/demo/ltmi_fcn-r18_400_shapes-128x128.py')
    cfg.work_dir = str(folder)
    cfg.experiment_name = folder.name
    cfg.log_level = 'ERROR'
    cfg.model.update(model)
    cfg.model.data_preprocessor.size = (32, 32)
    cfg.model.decode_head.contrast.queue = dict(size=208)
    cfg.model.decode_head.contrast.sampler = dict(num_samples=64)
    cfg.train_dataloader.update(batch_size=2, num_workers=1)
    dataset = dict(data_root=str(folder.parent / 'data'), num_images=16, size=(32, 32))
    cfg.train_dataloader.dataset.update(dataset)
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.train_cfg.max_iters = steps
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=steps)
    return cfg
