"""DDRHead and PIDHead, which give their losses by position and tell them no ignore_index."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from tiny import COUNTS, LOSS, batch

from mmseg_ltmi.engine.hooks.run_checks import untold_ignore_index

BOUNDARY = dict(type='BoundaryLoss')
COMMON = dict(channels=8, num_classes=4, norm_cfg=dict(type='BN'), align_corners=False)
FREE = dict(type='LogitAdjustedLoss', class_prior=[0, *COUNTS[1:]])


def build(name, losses, **options):
    channels = dict(in_channels=8, act_cfg=dict(type='ReLU')) if 'PID' in name else {}
    config = {'in_channels': 16, **COMMON, **channels, 'type': name, 'loss_decode': losses}
    return MODELS.build({**config, **options}).train()


def losses_of_a_step(head, label=None):
    torch.manual_seed(0)
    _, samples = batch(size=32)
    for sample in samples:
        sample.gt_edge_map = PixelData(data=torch.zeros(1, 32, 32))
        if label is not None:
            sample.gt_sem_seg.data.fill_(label)
    sizes = (4, 8, 4) if 'PID' in type(head).__name__ else (8, 16)
    return head.loss([torch.randn(2, size, 8, 8) for size in sizes], samples, {})


@pytest.mark.parametrize(
    'loss', [FREE, dict(type='SoftmaxFocalLoss')], ids=lambda loss: loss['type']
)
@pytest.mark.parametrize('name', ['LTMIDDRHead', 'LTMIPIDHead'])
def test_a_class_that_the_head_ignores_is_not_trained(name, loss):
    losses = [loss, loss, BOUNDARY, loss] if 'PID' in name else [loss, loss]
    head = build(name, losses, ignore_index=0, class_prior=FREE['class_prior'])
    found = losses_of_a_step(head, label=0)
    assert all(found[key] == 0 for key in found if 'loss' in key)
    assert any(value > 0 for value in losses_of_a_step(head, label=1).values())


def test_a_loss_ignores_what_its_head_does():
    head = build('LTMIDDRHead', [LOSS, {**LOSS, 'ignore_index': 7}])
    with pytest.raises(ValueError, match=r'has ignore_index=7, LTMIDDRHead has ignore_index=255'):
        losses_of_a_step(head)


def test_a_stock_head_that_does_not_tell_its_losses_is_warned_of():
    said = untold_ignore_index(build('DDRHead', [FREE, FREE], ignore_index=0))
    assert (
        'class 0' in said and 'give LogitAdjustedLoss ignore_index=0, or take LTMIDDRHead' in said
    )
    own = {**FREE, 'ignore_index': 0}
    for head in (
        build('DDRHead', [own, own], ignore_index=0),
        build('LTMIDDRHead', [FREE, FREE], ignore_index=0),
        build('DDRHead', [FREE, FREE]),
    ):
        assert not untold_ignore_index(head)
