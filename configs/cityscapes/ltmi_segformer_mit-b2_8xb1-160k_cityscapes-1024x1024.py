_base_ = [
    'mmseg::segformer/segformer_mit-b2_8xb1-160k_cityscapes-1024x1024.py',
    '../_base_/ltmi_cityscapes.py',
]
model = dict(
    decode_head=dict(type='LTMISegformerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
