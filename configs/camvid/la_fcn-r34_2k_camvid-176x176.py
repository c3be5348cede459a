# A teacher is an ordinary config: deeper than its student, trained twice as long, with logit
# adjustment alone.
_base_ = ['./ce_fcn-r18_1k_camvid-176x176.py', '../_base_/ltmi_camvid.py']
model = dict(backbone=dict(depth=34), decode_head=dict(loss_decode=_base_.ltmi_loss))
param_scheduler = [dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=0, end=2000, by_epoch=False)]
train_cfg = dict(max_iters=2000, val_interval=2000)
