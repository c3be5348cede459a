import pickle
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi import compat


def test_stand_in_names_the_op_and_the_remedy():
    module = sys.modules['mmcv._ext']
    if not isinstance(module, compat._MissingOps):
        pytest.skip('full mmcv is installed')
    with pytest.raises(RuntimeError, match='(?s)nms.*install full mmcv'):
        module.nms()
    with pytest.raises(AttributeError):
        _ = module.__wrapped__
    assert module.__file__ and module.__spec__


def test_apply_twice_changes_nothing():
    before = sys.modules['mmcv._ext']
    compat.apply()
    assert sys.modules['mmcv._ext'] is before


def test_mmengine_statistics_load_with_weights_only(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({'b': buffer, 'n': np.float64(3)}, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['b'].mean() == 1.5 and loaded['n'] == 3


class Crafted:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    'call', [(print, 'ran'), (getattr, HistoryBuffer, '__init__'), (getattr, np.ndarray, 'mean')]
)
def test_crafted_checkpoint_is_still_refused(tmp_path, call):
    torch.save({'x': Crafted(*call)}, tmp_path / 'a.pth')
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        torch.load(tmp_path / 'a.pth', weights_only=True)
