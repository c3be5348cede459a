import pytest
from mmengine.registry import init_default_scope

import mmseg_ltmi  # noqa: F401  before mmseg.models, which needs its stand-in for compiled ops


@pytest.fixture(autouse=True)
def default_scope():
    """A Runner leaves its scope behind, in which the next test would look for models."""
    init_default_scope('mmseg')
