"""What the losses say of the scores."""

import pytest
import torch
from mmseg.models import losses as mmseg_losses
from torch import nn

from mmseg_ltmi.core import LogitAdjustedLoss
from mmseg_ltmi.core.posterior import natural_shift_of, stated_shift


def test_class_weights_of_cross_entropies_of_mmsegmentation():
    for kind in (mmseg_losses.CrossEntropyLoss, mmseg_losses.OhemCrossEntropy):
        torch.testing.assert_close(
            natural_shift_of(kind(class_weight=[4.0, 1.0]), 2), -torch.tensor([4.0, 1.0]).log()
        )
    ohem = mmseg_losses.OhemCrossEntropy
    torch.testing.assert_close(natural_shift_of(mmseg_losses.CrossEntropyLoss(), 2), torch.zeros(2))
    # Beside another loss it has no say, as before, and it reads no file.
    assert natural_shift_of(ohem(), 2) is natural_shift_of(ohem(class_weight='w.npy'), 2) is None


def test_a_loss_of_weight_0_says_nothing():
    plain = nn.CrossEntropyLoss()
    adjusted = LogitAdjustedLoss([3, 1])
    off = LogitAdjustedLoss([3, 1], loss_weight=0)
    torch.testing.assert_close(stated_shift([off, plain], 2), torch.zeros(2))
    torch.testing.assert_close(stated_shift([plain, adjusted], 2), torch.zeros(2))
    torch.testing.assert_close(stated_shift([off, adjusted], 2), adjusted.natural_shift())
    assert stated_shift([off], 2) is None


@pytest.mark.parametrize('weight', [[0.0, 0.0], [1.0, -1.0], [float('nan'), 1.0], [1e39, 1.0]])
def test_weights_that_give_no_finite_shift_are_refused(weight):
    loss = nn.CrossEntropyLoss(torch.tensor(weight))
    with pytest.raises(ValueError, match='CrossEntropyLoss.class_weight must be finite'):
        natural_shift_of(loss, 2)
    with pytest.raises(ValueError, match='class_weight must be positive finite'):
        LogitAdjustedLoss([3, 1], class_weight=weight)


def test_a_weight_of_0_beside_others_gets_the_smallest_shift():
    loss = nn.CrossEntropyLoss(torch.tensor([0.0, 4.0, 1.0]))
    expected = -torch.tensor([4.0, 4.0, 1.0]).log()
    torch.testing.assert_close(natural_shift_of(loss, 3), expected)
