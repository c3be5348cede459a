"""Packages that import on demand offer to Python what they offer to type checkers."""

import ast
import importlib
import pickle
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import mmseg_ltmi.core

PACKAGES = ('', '.apis', '.core', '.evaluation', '.visualization')


def imports_for_types(package):
    """Module and name of each import under ``if TYPE_CHECKING`` of a package."""
    tree = ast.parse(Path(package.__file__).read_text(encoding='utf-8'))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            for line in node.body:
                for alias in line.names:
                    yield resolve_name('.' * line.level + line.module, package.__name__), alias.name


@pytest.mark.parametrize('name', PACKAGES)
def test_names_are_those_that_type_checkers_see(name):
    package = importlib.import_module(f'mmseg_ltmi{name}')
    seen = dict(reversed(pair) for pair in imports_for_types(package))
    assert seen.keys() | {'__version__'} == {*package.__all__, '__version__'}
    assert seen.keys() <= set(dir(package))
    for key, home in seen.items():
        assert getattr(package, key) is getattr(importlib.import_module(home), key)


@pytest.mark.parametrize('name', PACKAGES)
def test_other_names_are_the_usual_error(name):
    package = importlib.import_module(f'mmseg_ltmi{name}')
    with pytest.raises(AttributeError, match=f"module 'mmseg_ltmi{name}' has no attribute 'no'"):
        _ = package.no
    assert not hasattr(package, '__wrapped__')


def test_modules_and_names_are_there_without_an_import_of_their_own():
    code = """
import sys, mmseg_ltmi.core, mmseg_ltmi.visualization
assert not {'torch', 'numpy'} & set(sys.modules)
assert 'LTMILoss' in dir(mmseg_ltmi.core) and 'LTMILoss' not in vars(mmseg_ltmi.core)
assert mmseg_ltmi.core.losses.LTMILoss is mmseg_ltmi.core.LTMILoss
assert vars(mmseg_ltmi.core)['LTMILoss'] is mmseg_ltmi.core.LTMILoss
assert mmseg_ltmi.visualization.prior_plot.plot_class_prior
from mmseg_ltmi.core import *
from mmseg_ltmi.core import losses
assert PixelContrast.__module__.startswith('mmseg_ltmi.core.contrast')
"""
    subprocess.run([sys.executable, '-c', code], check=True)


def test_what_comes_from_them_pickles():
    prior = mmseg_ltmi.core.ClassPrior([3, 1])
    assert pickle.loads(pickle.dumps(prior)) == prior
    assert pickle.loads(pickle.dumps(mmseg_ltmi.core.LTMILoss)) is mmseg_ltmi.core.LTMILoss
