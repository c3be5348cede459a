"""A data set of one's own in the working directory, and a run on it."""

import itertools

import numpy as np
from mmengine.config import Config
from PIL import Image
from tiny import segmentor

NUMBER = itertools.count()
NAMES = ['road', 'Traffic_Light', 'pole', 'bike']
TURNED = ['road', 'pole', 'traffic light', 'bike']
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]


def write_data(folder):
    """Four images, with labels 0..3; and a folder for configs."""
    rng = np.random.default_rng(0)
    for name in ('img', 'ann', 'configs'):
        (folder / name).mkdir()
    for i in range(4):
        image = rng.integers(0, 255, (24, 24, 3), np.uint8)
        labels = rng.choice(4, (24, 24), p=[0.7, 0.2, 0.07, 0.03]).astype(np.uint8)
        Image.fromarray(image).save(folder / f'img/{i}.jpg')
        Image.fromarray(labels).save(folder / f'ann/{i}.png')


def data(**options):
    folders = dict(img_path='img', seg_map_path='ann')
    own = dict(metainfo=dict(classes=NAMES), data_prefix=folders, pipeline=PIPELINE)
    return {'type': 'BaseSegDataset', **own, **options}


def config(class_prior, dataset=None, head=None, hook=False, **model):
    loss = dict(type='LogitAdjustedLoss', class_prior=class_prior)
    contrast = dict(queue=dict(size=64), sampler=dict(num_samples=32))
    head = dict(loss_decode=loss, contrast=contrast, **(head or {}))
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'))
    return Config(
        dict(
            default_scope='mmseg',
            model=segmentor(head=head, **model),
            train_dataloader=dict(dataset=dataset or data(), **loader),
            test_pipeline=[PIPELINE[0], PIPELINE[2]],
            work_dir='work',
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
            custom_hooks=[dict(type='ClassPriorHook')] if hook else [],
            custom_imports=dict(imports=['mmseg_ltmi']),
            log_level='ERROR',
            experiment_name=f'prior-{next(NUMBER)}',
        )
    )
