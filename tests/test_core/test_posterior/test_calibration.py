import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ltmi.core.posterior import calibrating_temperature


def test_two_classes_by_hand():
    """3 of 4 pixels are right: p must be 0.75, so score / T = log 3."""
    scores = torch.tensor([[2.0, 0.0]]).expand(4, 2)
    label = torch.tensor([0, 0, 0, 1])
    assert calibrating_temperature(scores, label) == pytest.approx(2 / math.log(3), rel=1e-4)
    # The pixel that is wrong counts three times: 3 of 6, which only T = infinity says.
    weight = torch.tensor([1.0, 1, 1, 3])
    assert calibrating_temperature(scores, label, weight) == pytest.approx(20)
    # All are right: as sharp as float32 can tell.
    assert 0.05 <= calibrating_temperature(scores, label * 0) < 0.2
    assert calibrating_temperature(scores * 0, label) == 1
    ruled_out = torch.cat([scores, torch.full((4, 1), -math.inf)], 1)
    assert calibrating_temperature(ruled_out, label) == pytest.approx(2 / math.log(3), rel=1e-4)
    with pytest.raises(ValueError, match='there is none'):
        calibrating_temperature(scores[:0], label[:0])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.floats(0.1, 8), st.integers(0, 10**6))
def test_no_other_temperature_is_more_likely(num_classes, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(200, num_classes, generator=generator).double()
    label = torch.multinomial((scores / 2).softmax(1), 1, generator=generator)[:, 0]
    found = calibrating_temperature(scores, label)

    def log_loss(temperature):
        return float(F.cross_entropy(scores / temperature, label))

    for other in (found * 1.05, found / 1.05):
        if 0.05 <= other <= 20:
            assert log_loss(found) <= log_loss(other) + 1e-9
