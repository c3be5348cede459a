_base_ = './ltmi_swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
# The config beside this one that trains the teacher.
name = 'la_swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512'
model = dict(
    type='DistilledEncoderDecoder',
    teacher=dict(
        config=f'{{ fileDirname }}/{name}.py',
        checkpoint=f'work_dirs/{name}/iter_160000.pth',
    ),
)
