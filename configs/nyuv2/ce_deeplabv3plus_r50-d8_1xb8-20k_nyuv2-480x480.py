# Images of 640x480, for one GPU.
_base_ = [
    'mmseg::_base_/models/deeplabv3plus_r50-d8.py',
    '../_base_/datasets/nyuv2.py',
    '../_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_20k.py',
]
# avg_non_ignore, as LTMILoss has it: crops of the smallest images are two thirds padding.
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    decode_head=dict(num_classes=39, loss_decode=dict(avg_non_ignore=True)),
    auxiliary_head=dict(num_classes=39, loss_decode=dict(avg_non_ignore=True)),
)
randomness = dict(seed=0)
