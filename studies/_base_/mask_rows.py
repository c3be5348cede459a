# What camvid_masks.py and nyuv2_masks.py compare. The prior is counted on the train set.
def adjusted(contrast=None, **head):
    """The LTMI head with half weights, its queries adjusted by the prior of presence."""
    head = dict(type='LTMIMask2FormerHead', loss_decode=_half, contrast=contrast, **head)
    return dict(change=dict(model=dict(decode_head=head)))


_half = dict(type='LogitAdjustedLoss', tau=0.5, class_weight='inverse_sqrt')
_weights = dict(type='LogitAdjustedLoss', tau=0.0, class_weight='median_frequency')
rows = {
    'cross-entropy': dict(),
    'weights': dict(
        change=dict(model=dict(decode_head=dict(type='LTMIMask2FormerHead', loss_decode=_weights)))
    ),
    'half-weights': adjusted(),
    'half-weights-matching': adjusted(frequency_matching=dict()),
    'LTMI': adjusted({}),
    'LTMI-no-own-key': adjusted(dict(loss=dict(own_key=False))),
    'LTMI-pixels': adjusted({}, contrast_at='pixels'),
}
