_base_ = [
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    '../_base_/ltmi_ade20k.py',
]
model = dict(
    decode_head=dict(type='LTMISegformerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
