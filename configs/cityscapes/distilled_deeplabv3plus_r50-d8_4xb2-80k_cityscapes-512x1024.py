_base_ = './ltmi_deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py'
model = dict(
    type='DistilledEncoderDecoder',
    teacher=dict(
        config='{{ fileDirname }}/la_deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        checkpoint='work_dirs/la_deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024/iter_80000.pth',
    ),
)
