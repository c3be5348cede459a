# What each loss is worth with 39 classes, on NYUv2. A quarter of an hour a run on one CPU core:
#   python studies/run.py studies/nyuv2.py --workers 2
_base_ = './_base_/nyuv2.py'
base = '../configs/nyuv2/ce_fpn-lite0_1200_nyuv2-224x224.py'
memory = ['--centers', '16']


def head(**change):
    """The base's head, with a change."""
    return dict(change=dict(model=dict(decode_head=change)))


def adjusted(contrast=None, **loss):
    """An LTMI head with a LogitAdjustedLoss, and contrast on request."""
    loss = {'_delete_': True, 'type': 'LogitAdjustedLoss', 'class_prior': 'nyuv2', **loss}
    return head(type='LTMIFPNHead', loss_decode=loss, contrast=contrast)


_half = dict(tau=0.5, class_weight='inverse_sqrt')


def with_head(row, **more):
    """The row with more in its head."""
    row['change']['model']['decode_head'].update(more)
    return row


def resampled(row, **dataset):
    """The row on another train set, whose prior is counted; it is read for the classes of test."""
    with_head(row, test_prior='nyuv2')['change'].update(
        train_dataloader=dict(dataset=dict(_delete_=True, **dataset)),
        custom_hooks=[dict(type='ClassPriorHook'), dict(type='StepSeedHook')],
    )
    row['change']['model']['decode_head']['loss_decode']['class_prior'] = None
    return row


def beside_lovasz(row):
    loss = row['change']['model']['decode_head'].pop('loss_decode')
    del loss['_delete_']
    # per_image: classes that an image lacks say nothing there.
    lovasz = dict(type='LovaszLoss', per_image=True, loss_weight=0.5)
    return with_head(row, loss_decode=[loss, lovasz])


def longer(row):
    """Twice the steps."""
    row['change'].update(
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
            dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=50, end=2400, by_epoch=False),
        ],
        train_cfg=dict(max_iters=2400, val_interval=2400),
    )
    return row


_train = dict(
    type='NYUv2Dataset',
    data_root='{{$LTMI_NYU_ROOT:data/nyudv2}}',
    data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
)
_load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
_resize = dict(type='RandomResize', scale=(344, 256), ratio_range=(0.75, 1.5), keep_ratio=True)
_crop = [
    dict(type='RandomCrop', crop_size=(224, 224), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
_sampled = dict(type='RareClassDataset', dataset=dict(_train, pipeline=[*_load, _resize, *_crop]))
_pasted = dict(
    type='MultiImageMixDataset',
    dataset=dict(_train, pipeline=[*_load, _resize]),
    pipeline=[dict(type='RareClassPaste'), *_crop],
)
_six = dict(seeds=(0, 1, 2, 3, 4, 5))  # the rows that the conclusions are of
rows = {
    'cross-entropy': dict(_six),
    'OHEM': head(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=10000)),
    'focal': head(loss_decode=dict(_delete_=True, type='SoftmaxFocalLoss')),
    'logit-adjustment': adjusted(),
    'weights': dict(adjusted(tau=0.0, class_weight='median_frequency'), **_six),
    'half-weights': dict(adjusted(**_half), **_six),
    'LTMI': dict(adjusted({}, **_half), **_six),
    # The field's other remedies, and what they add to LTMI.
    'BLV': adjusted(type='BLVLoss', tau=0.0),
    'BLV-zero-mean': adjusted(type='BLVLoss', tau=0.0, zero_mean=True),
    'region': with_head(adjusted(tau=0.0), region=dict()),
    'simplex-regions': with_head(adjusted(tau=0.0), region=dict(centers='simplex')),
    'rare-class-sampling': resampled(adjusted(tau=0.0), **_sampled),
    'rare-class-paste': resampled(adjusted(tau=0.0), **_pasted),
    'half-weights-region': with_head(adjusted(**_half), region=dict()),
    'half-weights-Lovasz': beside_lovasz(adjusted(**_half)),
    'LTMI-region': with_head(adjusted({}, **_half), region=dict()),
    'LTMI-region-keys': adjusted(dict(region_keys=True), **_half),
    'LTMI-sampling': resampled(adjusted({}, **_half), **_sampled),
    'LTMI-paste': resampled(adjusted({}, **_half), **_pasted),
    'LTMI-Lovasz': beside_lovasz(adjusted({}, **_half)),
    'LTMI-stride-8': dict(base='./_base_/stride_8_nyuv2.py'),
    # What may bring in classes that are never predicted, and what more steps are worth.
    'LTMI-tau-1': adjusted({}, tau=1.0, class_weight='inverse_sqrt'),
    'LTMI-cosine': with_head(adjusted({}, **_half), classifier=dict(type='cosine')),
    'half-weights-long': longer(adjusted(**_half)),
    'LTMI-long': longer(adjusted({}, **_half)),
}
