"""The core needs torch and numpy alone, and the parts of the package depend in one direction."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'mmseg_ltmi'
# What a function of the core may import when it is called; each has its own use.
ON_DEMAND = {'cv2', 'PIL', 'rich'}
# Modules that are themselves imported on demand, by name.
NEED_TRITON = {'class_mixture_kernels.py', 'class_mixture_triton.py'}

STEPS = """
import sys

for name in ('mmengine', 'mmcv', 'mmseg'):
    sys.modules[name] = None  # as if it were not installed
import torch
from torch import nn
from mmseg_ltmi.core import FeatureRecorder, LTMILoss, PixelContrast, ScoreReader

torch.manual_seed(0)
counts = [80, 15, 4, 1]
network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
recorder = FeatureRecorder(network)
criterion, contrast = LTMILoss(counts), PixelContrast(recorder.channels, 4, counts)
optimizer = torch.optim.AdamW([*network.parameters(), *contrast.parameters()], 0.01)
labels = torch.randint(0, 4, (2, 12, 12))
images = nn.functional.one_hot(labels, 4)[..., 1:].movedim(-1, 1).float()
labels[:, :2] = 255
sums = []
for _ in range(20):
    loss_seg = criterion(network(images), labels)
    terms = contrast(recorder.features, labels)
    loss = loss_seg + terms['loss_contrast']
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    sums.append(loss.item())
parameters = [*network.parameters(), *contrast.parameters()]
assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
assert sums[-1] < 0.8 * sums[0], sums

reader = ScoreReader(4)
reader.update(criterion.natural_shift(), criterion.log_prior)
logits = network(images)
assert torch.allclose(reader(logits), logits + criterion.natural_shift().view(1, -1, 1, 1))
assert reader.decide(reader(logits)).shape == labels.shape
"""


# From the top; every other module of the core is below them.
LAYERS = ('posterior', 'contrast', 'region_rebalance', 'losses', 'priors')


def layer(part):
    name = part.removesuffix('.py')
    return -LAYERS.index(name) if name in LAYERS else -len(LAYERS)


def python(code):
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_training_steps_without_openmmlab():
    python(STEPS)


def test_importing_it_imports_nothing_else():
    code = """
import sys, mmseg_ltmi.core.shapes
from mmseg_ltmi.core import *  # all of it: its names are imported when they are used
print(*sys.modules)
"""
    unwanted = {'mmengine', 'mmcv', 'mmseg', 'matplotlib', 'prettytable', 'triton'} | ON_DEMAND
    assert not unwanted & set(python(code).split())


def modules_below(folder):
    return [pytest.param(path, id=path.relative_to(PACKAGE).as_posix())
            for path in sorted((PACKAGE / folder).rglob('*.py'))]  # fmt: skip


def imports(path):
    """Absolute name of each module, or of the name taken from it, and whether a function does."""
    tree = ast.parse(path.read_text())
    package = '.'.join(path.relative_to(PACKAGE.parent).parent.parts)
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in inside
        elif isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name('.' * node.level + (node.module or ''), package)
            for alias in node.names:
                # `from .. import losses` may take a module.
                yield f'{name}.{alias.name}', node in inside


@pytest.mark.parametrize('path', modules_below('core'))
def test_no_import_leaves_the_core(path):
    for name, inside in imports(path):
        top = name.partition('.')[0]
        if top == 'mmseg_ltmi':
            assert name.startswith('mmseg_ltmi.core.'), name
        else:
            allowed = {'torch', 'numpy'} | (ON_DEMAND if inside else set())
            allowed |= {'triton'} if path.name in NEED_TRITON else set()
            assert top in sys.stdlib_module_names | allowed, name


@pytest.mark.parametrize('path', modules_below('core'))
def test_imports_in_the_core_run_downwards(path):
    """As docs/architecture.md draws it."""
    parts = path.relative_to(PACKAGE / 'core').parts
    if parts[0] == '__init__.py':
        return  # names of all of it
    for name, _ in imports(path):
        below = name.removeprefix('mmseg_ltmi.core.').partition('.')[0]
        if name.startswith('mmseg_ltmi.core.'):
            assert layer(below) <= layer(parts[0]), name


@pytest.mark.parametrize('path', modules_below('models'))
def test_models_know_no_metric_and_no_plot(path):
    for name, _ in imports(path):
        parts = name.split('.')
        assert parts[:2] not in (['mmseg_ltmi', 'evaluation'], ['mmseg_ltmi', 'visualization']), (
            name
        )
