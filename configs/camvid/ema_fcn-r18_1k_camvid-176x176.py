# LTMI with contrast samples from a moving average of the network itself.
_base_ = './ltmi_fcn-r18_1k_camvid-176x176.py'
model = dict(type='DistilledEncoderDecoder', teacher=dict(type='EMA', momentum=0.999))
