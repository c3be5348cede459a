"""``import mmseg_ltmi`` registers, whatever is imported first; without OpenMMLab it says so."""

import os

import pytest
from test_compat import python

import mmseg_ltmi

pytestmark = pytest.mark.smoke
LOOK = """
from mmengine.registry import init_default_scope
init_default_scope('mmseg')
for registry, name in (
    ('MODELS', 'LTMIUPerHead'), ('MODELS', 'LTMILoss'), ('MODELS', 'PixelContrast'),
    ('MODELS', 'LTMIEncoderDecoder'), ('METRICS', 'LongTailIoUMetric'),
    ('METRICS', 'LogitAdjustmentSweep'),
    ('HOOKS', 'ClassPriorHook'), ('DATASETS', 'CamVidDataset'), ('TRANSFORMS', 'PackTwoViews'),
):
    import mmseg.registry
    found = getattr(mmseg.registry, registry)
    assert found.get(name) is not None, name
    assert found.get('FCNHead' if registry == 'MODELS' else name) is not None
print('all')
"""


FIRST = [
    'import mmseg_ltmi',
    'import mmseg_ltmi.core',
    'import mmseg_ltmi, mmseg.apis',
    'import mmseg.registry\nimport mmseg_ltmi',
    'import mmseg_ltmi.models',
    'import mmseg_ltmi, importlib.util\nimportlib.util.find_spec("mmseg.registry")',
    'import mmseg_ltmi.evaluation',
    'from mmseg_ltmi.evaluation import LongTailIoUMetric',
    "import mmseg_ltmi\nfrom mmseg.registry import MODELS\nMODELS.get('mmseg.FCNHead')",
    'import mmseg.registry\nmmseg.registry.METRICS.get("x")\nimport mmseg_ltmi',
]
# What takes long to import and is neither ours nor OpenMMLab's is there already.
IN_FORKS = """
import os, sys
from contextlib import suppress
for name in ('torch._dynamo', 'torch.distributed.fsdp', 'scipy.optimize', 'transformers'):
    with suppress(ImportError):
        __import__(name)
for first in {first}:
    if os.fork() == 0:
        exec(first + {look!r})
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0, first
"""


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='imports in forks')
def test_registered_whatever_comes_first():
    # The fork prints lines of its own.
    said = python(IN_FORKS.format(first=FIRST, look=LOOK)).splitlines()
    assert said.count('all') == len(FIRST)


def test_import_of_the_package_imports_neither_torch_nor_openmmlab():
    out = python(
        """
        import mmseg_ltmi
        print(sorted({'torch', 'mmengine', 'mmcv', 'mmseg', 'numpy'} & set(sys.modules)))
        print(mmseg_ltmi.__version__, mmseg_ltmi.ClassPrior([1, 2]).num_classes)
        """
    )
    assert out.splitlines() == ['[]', f'{mmseg_ltmi.__version__} 2']


BLOCK = """
from importlib.abc import MetaPathFinder
class Blocked(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in ('mmengine', 'mmcv', 'mmseg'):
            raise ModuleNotFoundError(f'no {name}', name=name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: (
    None if name.split('.')[0] in ('mmengine', 'mmcv', 'mmseg') else real(name, *rest)
)
sys.meta_path.insert(0, Blocked())
"""


def test_without_openmmlab_the_core_works_and_the_rest_says_what_installs_it():
    out = python(
        BLOCK
        + """
import mmseg_ltmi
from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core import LTMILoss
print(LTMILoss(ClassPrior([3, 1])).natural_shift().shape)
for part in ('models', 'datasets', 'engine', 'evaluation'):
    try:
        __import__(f'mmseg_ltmi.{part}')
    except ImportError as error:
        print(error)
try:
    mmseg_ltmi.nothing
except AttributeError as error:
    print(error)
"""
    )
    first, *others = out.splitlines()
    assert first == 'torch.Size([2])' and len(others) == 5
    assert all("pip install 'mmseg_ltmi[lite]'" in line for line in others[:4])
    assert others[4] == "module 'mmseg_ltmi' has no attribute 'nothing'"
