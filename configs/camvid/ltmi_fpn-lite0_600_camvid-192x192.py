_base_ = './ce_fpn-lite0_600_camvid-192x192.py'
model = dict(
    decode_head=dict(
        type='LTMIFPNHead',
        loss_decode=dict(
            _delete_=True,
            type='LogitAdjustedLoss',
            class_prior='camvid',
            tau=0.5,
            class_weight='inverse_sqrt',
        ),
        contrast=dict(class_prior='camvid'),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
