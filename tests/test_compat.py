"""Each step of compat, and that it leaves alone what needs nothing."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import mmseg.registry  # which is when compat acts
import numpy as np
import pytest
import torch
from mmengine.config import utils as config_utils
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn
from torch.utils.data import DataLoader

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi import compat, package_configs

pytestmark = pytest.mark.smoke
ROOT = Path(__file__).parents[1]
guards_checkpoints = pytest.mark.skipif(
    torch.__version__ < '2.6', reason='torch.load does not default to weights_only'
)


def python(code: str, *path: Path) -> str:
    """Standard output of a fresh interpreter that sees ``path`` first."""
    head = f'import sys; sys.path[:0] = {[str(p) for p in (*path, ROOT)]!r}\n'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', head + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def stand_in() -> compat._MissingOps:
    module = sys.modules['mmcv._ext']
    if not isinstance(module, compat._MissingOps):
        pytest.skip('full mmcv is installed')
    return module


def test_stand_in_names_the_op_and_the_remedy():
    with pytest.raises(RuntimeError, match=r"(?s)'nms'.*mmcv==2\.1\.0"):
        stand_in().nms()


def test_stand_in_looks_like_a_module():
    module = stand_in()
    assert module.__file__ and module.__spec__.name == 'mmcv._ext'
    assert not hasattr(module, '__wrapped__')


def test_mmseg_models_import_and_a_compiled_op_says_so():
    stand_in()
    out = python(
        """
        import mmseg_ltmi, mmseg.models, torch
        from mmcv.ops import point_sample, sigmoid_focal_loss
        try:
            sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2).long())
        except RuntimeError as error:
            print(error)
        """
    )
    assert 'sigmoid_focal_loss' in out and 'install full mmcv' in out


def test_full_mmcv_gets_no_stand_in(tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('')
    (tmp_path / 'mmcv/_ext.py').write_text('compiled = True')
    code = """
        import importlib.util
        spec = importlib.util.spec_from_file_location('compat', 'COMPAT')
        compat = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compat)
        compat.stand_in_for_compiled_ops()
        assert 'mmcv._ext' not in sys.modules
        import mmcv._ext
        print(mmcv._ext.compiled)
        """.replace('COMPAT', str(ROOT / 'mmseg_ltmi/compat.py'))
    assert python(code, tmp_path) == 'True'


def test_apply_twice_changes_nothing():
    module = sys.modules['mmcv._ext']
    allowed = None
    if hasattr(torch.serialization, 'get_safe_globals'):
        allowed = list(torch.serialization.get_safe_globals())
    packages = dict(config_utils.MODULE2PACKAGE)
    initialize = OptimWrapper.__init__
    compat.apply()
    assert sys.modules['mmcv._ext'] is module
    assert config_utils.MODULE2PACKAGE == packages
    assert OptimWrapper.__init__ is initialize
    if allowed is not None:
        assert len(torch.serialization.get_safe_globals()) == len(allowed)


class Tiny(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode):
        out = self.layer(inputs).mean()
        return dict(loss=out, acc_seg=out.detach()) if mode == 'loss' else [out]


class NumpyScores(BaseMetric):
    """Gives what mmsegmentation's IoUMetric gives, numpy numbers."""

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(mIoU=np.round(np.float64(33.333), 2), aAcc=np.float32(50))


def run(work_dir: Path, iters: int, resume: bool = False) -> Runner:
    data: Any = [dict(inputs=torch.rand(2)) for _ in range(4)]
    loaders = [DataLoader(data, 2, sampler=DefaultSampler(data, shuffle=False)) for _ in range(2)]
    runner = Runner(
        model=Tiny(),
        work_dir=str(work_dir),
        train_dataloader=loaders[0],
        val_dataloader=loaders[1],
        val_evaluator=[NumpyScores()],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=2),
        val_cfg=dict(),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=dict(type='PolyLR', power=0.9, end=8, by_epoch=False),
        default_hooks=dict(checkpoint=CheckpointHook(2, by_epoch=False, save_best='mIoU')),
        custom_hooks=[dict(type='EMAHook')],
        experiment_name=f'compat{iters}',
        resume=resume,
    )
    runner.train()
    return runner


def test_checkpoint_of_a_run_loads_and_resumes(tmp_path):
    run(tmp_path, 4)
    checkpoint = torch.load(tmp_path / 'iter_4.pth')
    assert 'train/loss' in checkpoint['message_hub']['log_scalars']
    assert run(tmp_path, 6, resume=True).iter == 6
    assert (tmp_path / 'iter_6.pth').is_file()


@guards_checkpoints
def test_unprepared_torch_refuses_that_checkpoint(tmp_path):
    # When this fails, torch or mmengine has changed and the step can go.
    run(tmp_path, 2)
    out = python(
        f"""
        import torch
        try:
            torch.load({str(tmp_path / 'iter_2.pth')!r})
        except Exception as error:
            print('refused')
        """
    )
    assert out == 'refused'


def test_mmengine_statistics_load_with_weights_only(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({'b': buffer, 'n': np.float64(3)}, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth')
    assert loaded['b'].mean() == 1.5 and loaded['n'] == 3


@guards_checkpoints
def test_both_names_of_numpys_module_are_known(tmp_path):
    path = tmp_path / 'a.pth'
    names = (b'numpy._core.multiarray', b'numpy.core.multiarray')
    data = pickle.dumps({'n': np.float64(3), 'a': np.arange(3.0)}, protocol=2)
    for name in names:
        for other in names:
            data = data.replace(b'c' + other, b'c' + name)
        # The legacy format of torch: magic number, protocol, system, object, storages.
        head = [0x1950A86A20F9469CFC6C, 1001, {}]
        parts = [*(pickle.dumps(h, protocol=2) for h in head), data, pickle.dumps([], protocol=2)]
        path.write_bytes(b''.join(parts))
        loaded = torch.load(path, weights_only=True)
        assert loaded['n'] == 3 and loaded['a'].tolist() == [0, 1, 2]


class Crafted:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    'call', [(print, 'ran'), (getattr, HistoryBuffer, '__init__'), (getattr, np.ndarray, 'mean')]
)
@pytest.mark.parametrize('load', [torch.load, CheckpointLoader.load_checkpoint])
@guards_checkpoints
def test_crafted_checkpoint_is_still_refused(tmp_path, call, load, capsys):
    torch.save({'x': Crafted(*call)}, tmp_path / 'a.pth')
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        load(str(tmp_path / 'a.pth'), map_location='cpu')
    assert 'ran' not in capsys.readouterr().out


def test_older_torch_needs_no_allow_list(monkeypatch):
    monkeypatch.setattr(torch, '__version__', torch.torch_version.TorchVersion('2.5.1'))
    monkeypatch.delattr(torch.serialization, 'add_safe_globals', raising=False)
    compat.allow_checkpoint_classes()


@pytest.mark.parametrize(
    ('installed', 'package'),
    [
        ('mmsegmentation', 'mmsegmentation'),
        ('onedl-mmsegmentation', 'mmseg'),
        ('neither', 'mmsegmentation'),
    ],
)
def test_only_the_fork_is_renamed(monkeypatch, installed, package):
    monkeypatch.setattr(package_configs, '_is_distribution', lambda name: name == installed)
    monkeypatch.setitem(config_utils.MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    package_configs.find_configs()
    assert config_utils.MODULE2PACKAGE['mmseg'] == package


def test_configs_of_packages_are_found_without_pkg_resources():
    # In a Python of its own: setuptools 82 has none.
    out = python(
        """
        sys.modules['pkg_resources'] = None
        import warnings
        warnings.filterwarnings('error', 'pkg_resources')
        import mmseg_ltmi
        from mmengine.config import Config
        from mmengine.hub import get_config
        for base in (
            'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            'mmseg_ltmi::demo/ce_fcn-r18_400_shapes-128x128.py',
        ):
            print(Config.fromstring(f'_base_ = {base!r}', '.py').model.decode_head.num_classes)
            print(get_config(base).model.decode_head.num_classes)
        """
    )
    assert out.split()[-4:] == ['19', '19', '13', '13']


def test_openmmlabs_own_deprecations_are_not_shown():
    out = python(
        """
        import warnings
        warnings.simplefilter('always')
        warnings.showwarning = lambda message, *rest: print('warned:', message)
        import mmseg_ltmi, torch
        from mmengine.fileio import FileClient
        from mmengine.model import MMDistributedDataParallel
        from mmseg.models import FCNHead
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
        head = FCNHead(in_channels=4, channels=4, num_classes=2)
        MMDistributedDataParallel(head, broadcast_buffers=False)  # as the Runner does
        FileClient.infer_client(uri='.')  # as the CheckpointHook does
        """
    )
    assert 'warned: Default ``avg_non_ignore`` is False' in out  # which a user can set
    for own in ('build_loss', 'broadcast_buffers', 'FileClient', 'HardDiskBackend'):
        assert own not in out


def test_a_package_that_is_nowhere_is_refused():
    assert not package_configs.is_installed('no_such_package')
    with pytest.raises(PackageNotFoundError, match='no_such_package'):
        package_configs.get_installed_path('no_such_package')


def hide(monkeypatch, hidden: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *rest: None if name == hidden else find(name)
    )


@pytest.mark.parametrize('missing', ['mmengine', 'mmcv', 'mmseg'])
def test_missing_package_is_named(monkeypatch, missing):
    hide(monkeypatch, missing)
    with pytest.raises(ImportError, match=rf'needs {missing}.*mmseg_ltmi\[lite\]'):
        compat.require_openmmlab()


@pytest.mark.parametrize('version', ['1.2.1', '0.30.0', '2.0.0'])
def test_other_mmsegmentation_is_refused(monkeypatch, version):
    monkeypatch.setattr(mmseg, '__version__', version)
    with pytest.raises(ImportError, match=f'mmseg.__version__ is {version}'):
        compat.check_version()
