_base_ = ['mmseg::ocrnet/ocrnet_hr48_4xb4-160k_ade20k-512x512.py', '../_base_/ltmi_ade20k.py']
# A list replaces the base's list, so the two stages are taken from it and changed here.
decode_head = _base_.model.decode_head
decode_head[0].loss_decode.update(_base_.ltmi_loss)
decode_head[1].update(type='LTMIOCRHead', contrast=dict())
decode_head[1].loss_decode.update(_base_.ltmi_loss)
model = dict(decode_head=decode_head)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
