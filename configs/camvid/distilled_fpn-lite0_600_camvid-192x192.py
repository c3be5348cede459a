# LTMI with contrast samples from a network that was trained longer.
_base_ = './ltmi_fpn-lite0_600_camvid-192x192.py'
model = dict(
    type='DistilledEncoderDecoder',
    teacher=dict(
        config='{{ fileDirname }}/teacher_fpn-lite0_1800_camvid-192x192.py',
        checkpoint='work_dirs/teacher_fpn-lite0_1800_camvid-192x192/iter_1800.pth',
    ),
)
