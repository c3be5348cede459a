_base_ = './ce_fcn-r18_2k_camvid-352x352.py'
model = dict(
    decode_head=dict(
        type='LTMIFCNHead',
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
