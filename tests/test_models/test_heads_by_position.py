"""DDRHead and PIDHead, which give their losses by position and tell them no ignore_index."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from tiny import COUNTS, LOSS, batch, segmentor

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.posterior import natural_shift_of_head
from mmseg_ltmi.engine.hooks.reading_checks import raw_decision_warning, untold_ignore_index_warning

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
    said = untold_ignore_index_warning(build('DDRHead', [FREE, FREE], ignore_index=0))
    assert (
        'class 0' in said and 'give LogitAdjustedLoss ignore_index=0, or take LTMIDDRHead' in said
    )
    own = {**FREE, 'ignore_index': 0}
    for head in (
        build('DDRHead', [own, own], ignore_index=0),
        build('LTMIDDRHead', [FREE, FREE], ignore_index=0),
        build('DDRHead', [FREE, FREE]),
    ):
        assert not untold_ignore_index_warning(head)


CE = {**LOSS, 'tau': 0.0}
SHIFT = ClassPrior(COUNTS).log_probs()
WHO_SPEAKS = [
    ('PIDHead', [CE, LOSS, BOUNDARY, LOSS], SHIFT),
    ('PIDHead', [LOSS, CE, BOUNDARY, CE], torch.zeros(4)),
    ('DDRHead', [LOSS, CE], SHIFT),
    ('DDRHead', [CE, LOSS], torch.zeros(4)),
]


@pytest.mark.parametrize('name, losses, shift', WHO_SPEAKS)
def test_scores_are_read_by_the_loss_of_the_branch_that_predicts(name, losses, shift):
    head = build(f'LTMI{name}', losses)
    torch.testing.assert_close(head.score_reader.natural_shift, shift)
    torch.testing.assert_close(natural_shift_of_head(head, 4), shift)
    losses_of_a_step(head, label=1)
    torch.testing.assert_close(head.score_reader.natural_shift, shift)
    stock = build(name, losses)
    torch.testing.assert_close(natural_shift_of_head(stock, 4), shift)
    model = segmentor(ltmi=False, type='LTMIEncoderDecoder')
    model['decode_head'] = dict(COMMON, type=name, loss_decode=losses, in_channels=128)
    model['decode_head'] |= dict(act_cfg=dict(type='ReLU')) if 'PID' in name else {}
    read = MODELS.build(model)
    torch.testing.assert_close(read.reader.natural_shift, shift)
    assert not raw_decision_warning(read)
    plain = MODELS.build({**model, 'type': 'EncoderDecoder'})
    assert bool(raw_decision_warning(plain)) == bool(shift.any())


def test_an_auxiliary_branch_does_not_speak_where_the_one_that_predicts_is_silent():
    dice = dict(type='DiceLoss')
    assert build('LTMIDDRHead', [dice, LOSS]).score_reader.natural_shift.isnan().all()
