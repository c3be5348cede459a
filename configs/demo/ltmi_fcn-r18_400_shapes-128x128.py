_base_ = './ce_fcn-r18_400_shapes-128x128.py'
# No prior is named: ClassPriorHook counts the train set before the run.
ltmi_loss = dict(type='LTMILoss')
model = dict(decode_head=dict(type='LTMIFCNHead', loss_decode=ltmi_loss, contrast=dict()))
custom_hooks = [dict(type='ClassPriorHook', num_workers=2)]
