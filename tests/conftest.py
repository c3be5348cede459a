import os

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

import mmseg_ltmi  # noqa: F401  before mmseg.models, which needs its stand-in for compiled ops

if not torch.cuda.is_available():
    # Triton asks when it is imported, and then runs kernels without a GPU.
    os.environ.setdefault('TRITON_INTERPRET', '1')


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: 'long' not in item.keywords)


@pytest.fixture(autouse=True)
def default_scope():
    """A Runner leaves its scope behind, in which the next test would look for models.

    A head that predicted leaves its prior, which the next test's metrics would take.
    """
    init_default_scope('mmseg')
    MessageHub.get_current_instance().runtime_info.pop('class_prior', None)
