_base_ = './ltmi_swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
model = dict(
    type='DistilledEncoderDecoder',
    teacher=dict(
        config='{{ fileDirname }}/la_swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        checkpoint='work_dirs/la_swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512/iter_160000.pth',
    ),
    alpha=1.0,
)
