_base_ = [
    'mmseg::segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py',
    '../_base_/ltmi_ade20k.py',
]
model = dict(
    decode_head=dict(
        type='LTMISegmenterMaskTransformerHead', loss_decode=_base_.ltmi_loss, contrast=dict()
    ),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
