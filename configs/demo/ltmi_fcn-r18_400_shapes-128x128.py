_base_ = './ce_fcn-r18_400_shapes-128x128.py'
model = dict(
    decode_head=dict(
        type='LTMIFCNHead',
        # No prior is named: ClassPriorHook counts the train set before the run.
        loss_decode=dict(
            _delete_=True, type='LogitAdjustedLoss', tau=0.5, class_weight='inverse_sqrt'
        ),
        contrast=dict(),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
custom_hooks = [dict(type='ClassPriorHook', num_workers=2)]
