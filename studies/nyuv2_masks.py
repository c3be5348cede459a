# What class weights, an adjusted classifier and its contrast are worth to a mask classifier, a
# small Mask2Former on NYUv2. A quarter of an hour a run on one CPU core; needs mmdet:
#   python studies/run.py studies/nyuv2_masks.py --workers 2
_base_ = './_base_/nyuv2.py'
base = '../configs/nyuv2/ce_mask2former-lite0_600_nyuv2-224x224.py'


def adjusted(contrast=None, **loss):
    """The LTMI head, its queries adjusted by the prior of presence, and contrast on request."""
    loss = dict(type='LogitAdjustedLoss', class_prior='nyuv2', **loss)
    head = dict(type='LTMIMask2FormerHead', loss_decode=loss, contrast=contrast)
    return dict(change=dict(model=dict(decode_head=head)))


def with_head(row, **more):
    """The row with more in its head."""
    row['change']['model']['decode_head'].update(more)
    return row


_half = dict(tau=0.5, class_weight='inverse_sqrt')
rows = {
    'cross-entropy': dict(),
    'weights': adjusted(tau=0.0, class_weight='median_frequency'),
    'half-weights': adjusted(**_half),
    'half-weights-matching': with_head(adjusted(**_half), frequency_matching=dict()),
    'LTMI': adjusted({}, **_half),
    'LTMI-no-own-key': adjusted(dict(loss=dict(own_key=False)), **_half),
    'LTMI-pixels': with_head(adjusted({}, **_half), contrast_at='pixels'),
}
