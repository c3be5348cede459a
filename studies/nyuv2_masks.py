# What class weights, an adjusted classifier and its contrast are worth to a mask classifier, a
# small Mask2Former on NYUv2. A quarter of an hour a run on one CPU core; needs mmdet:
#   python studies/run.py studies/nyuv2_masks.py --workers 2
_base_ = ['./_base_/nyuv2.py', './_base_/mask_rows.py']
base = '../configs/nyuv2/ce_mask2former-lite0_600_nyuv2-224x224.py'
common = dict(custom_hooks=[dict(type='ClassPriorHook'), dict(type='StepSeedHook')])
