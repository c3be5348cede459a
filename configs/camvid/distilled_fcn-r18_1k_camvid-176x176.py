# LTMI with contrast samples from a deeper network, which la_fcn-r34_2k_... trains.
_base_ = './ltmi_fcn-r18_1k_camvid-176x176.py'
model = dict(
    type='DistilledEncoderDecoder',
    teacher=dict(
        config='{{ fileDirname }}/la_fcn-r34_2k_camvid-176x176.py',
        checkpoint='work_dirs/la_fcn-r34_2k_camvid-176x176/iter_2000.pth',
    ),
)
