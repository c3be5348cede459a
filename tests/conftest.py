import os

import pytest
import torch
from mmengine.registry import init_default_scope

import mmseg_ltmi  # noqa: F401  before mmseg.models, which needs its stand-in for compiled ops
from mmseg_ltmi.prior_message import forget_announcements

if not torch.cuda.is_available():
    # Triton asks when it is imported, and then runs kernels without a GPU.
    os.environ.setdefault('TRITON_INTERPRET', '1')


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: 'long' not in item.keywords)


@pytest.fixture(autouse=True)
def default_scope():
    """A Runner leaves its scope behind, in which the next test would look for models.

    A model that predicted leaves its prior and reading, which the next test's metrics would take.
    """
    init_default_scope('mmseg')
    forget_announcements()
