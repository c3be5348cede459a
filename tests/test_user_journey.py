"""The quickstart, from a wheel, in a fresh environment and a folder of one's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from pages import blocks_of, commands_of, run_as_reader

ROOT = Path(__file__).parents[1]
EXPORT = """
import numpy as np, onnxruntime, torch
import mmseg_ltmi
from mmseg.apis import init_model

ltmi = init_model('ltmi_fcn.py', 'work_dirs/ltmi_fcn/iter_20.pth', device='cpu')
stock = init_model('fcn.py', 'stock.pth', device='cpu')
assert type(stock.decode_head).__name__ == 'FCNHead'
images = torch.randn(1, 3, 96, 96)
torch.onnx.export(stock, (images,), 'model.onnx', input_names=['images'])
session = onnxruntime.InferenceSession('model.onnx')
(scores,) = session.run(None, {'images': images.numpy()})
with torch.no_grad():
    read = ltmi.decode_head.score_reader(ltmi(images)).numpy()
raw = ltmi(images).detach().numpy()
assert np.abs(scores - read).max() < 1e-4 < np.abs(scores - raw).max()
print('exported scores are those that predict reads')
"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A Python in an environment of its own that has the wheel; all else is the tests' own."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    unbuilt = shutil.ignore_patterns('.*', 'build', '*.egg-info', 'work_dirs', 'data', 'site')
    shutil.copytree(ROOT, source, ignore=unbuilt)
    pip = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check']
    build = ['wheel', '--no-deps', '--no-build-isolation', '-w', str(folder), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob('*.whl')
    venv.create(folder / 'env', symlinks=True)
    python = folder / 'env' / 'bin' / 'python'
    # A line in a .pth file names a folder; the .pth files in there, such as that of an editable
    # install, do not count.
    where = sysconfig.get_path('purelib', vars={'base': str(folder / 'env')})
    Path(where, 'dependencies.pth').write_text(sysconfig.get_path('purelib'), 'utf-8')
    subprocess.run([*pip, '--python', str(python), 'install', '--no-deps', str(wheel)], check=True)
    shutil.rmtree(source)
    return python


@pytest.mark.long
def test_quickstart(installed, tmp_path):
    path = f'{installed.parent}{os.pathsep}{os.environ["PATH"]}'
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'LTMI'))}
    env |= {'PATH': path, 'OMP_NUM_THREADS': '1'}
    said = run_as_reader('quickstart.md', tmp_path, installed, env)
    where = subprocess.run(
        [installed, '-c', 'import mmseg_ltmi; print(mmseg_ltmi.__file__)'],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert where.startswith(str(installed.parents[1]))  # the wheel's, not the clone's
    assert f'{ROOT}/mmseg_ltmi' not in said
    assert 'torch.Size([1, 96, 96])' in said and '(96, 96)' in said
    runs = tmp_path / 'work_dirs'
    for file in (
        'ltmi_fcn/operating_point/operating_point.json',
        'comparison/difference.png',
        'ltmi_fcn/tail.png',
    ):
        assert (runs / file).is_file(), file
    exported = subprocess.run(
        [installed, '-c', EXPORT], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert 'exported scores are those that predict reads' in exported.stdout, exported.stderr


def test_the_quickstart_takes_ten_steps_or_more():
    blocks = blocks_of('quickstart.md')
    commands = [command for block in blocks for command in commands_of(block)]
    assert sum(command.startswith('mmseg-ltmi') for command in commands) >= 10
