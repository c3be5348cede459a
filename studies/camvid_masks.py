# What class weights, an adjusted classifier and its contrast are worth to a mask classifier, a
# small Mask2Former on CamVid. A quarter of an hour a run on one CPU core; needs mmdet:
#   python studies/run.py studies/camvid_masks.py --workers 2
# The drive that is held out chooses the operating points; the test split reports.
_base_ = ['./_base_/held_out_drive.py', './_base_/mask_rows.py']
base = '../configs/camvid/ce_mask2former-lite0_600_camvid-192x192.py'
seeds = (0, 1, 2)
judge = ['--select', 'val', '--report', 'test', '--class-prior', 'camvid']
