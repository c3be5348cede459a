"""A run that is stopped or killed, and resumed, ends bit for bit where the whole run does."""

import copy
import os
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.runner import FlexibleRunner, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from tiny import ROOT, demo_run

from mmseg_ltmi.apis import runs

STEPS, STOP = 5, 3
# Dies in the middle of writing the checkpoint after the one that is resumed.
KILLED = f"""
import os, signal, sys
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.runner import Runner
import mmseg_ltmi

put = LocalBackend.put

def half(self, content, path):
    if not str(path).endswith('iter_{STOP + 1}.pth'):
        return put(self, content, path)
    put(self, content[: len(content) // 2], path)
    os.kill(os.getpid(), signal.SIGKILL)

LocalBackend.put = half
Runner.from_cfg(Config.fromfile(sys.argv[1])).train()
"""
# mmengine's fork moves the sampler on where mmengine loads the skipped images again. The order of
# the images is then that of the whole run, the random state of the workers' transforms is not.
exact = pytest.mark.skipif(
    hasattr(_InfiniteDataloaderIterator, 'skip_iter'), reason='this mmengine skips images unseen'
)


def config(folder, teacher=None):
    model = {}
    if teacher is not None:
        model = dict(type='DistilledEncoderDecoder', teacher=teacher, alpha=1.0)
    cfg = demo_run(folder, STEPS, **model)
    cfg.default_hooks.checkpoint.interval = STOP
    cfg.custom_hooks += [dict(type='StepSeedHook')]
    return cfg


def assert_same(resumed, whole):
    assert resumed.iter == whole.iter == STEPS
    # equal_nan: no IoU rule was chosen.
    torch.testing.assert_close(
        resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0, equal_nan=True
    )


@exact
@pytest.mark.parametrize('kind', ['self keys', 'EMA', 'frozen', 'FlexibleRunner'])
def test_resumed_run_is_the_same_run(tmp_path, kind):
    # FlexibleRunner reads the checkpoint before the hook brings the class prior.
    runner = FlexibleRunner if kind == 'FlexibleRunner' else Runner
    teacher = dict(type='EMA', momentum=0.9) if kind == 'EMA' else None
    if kind == 'frozen':
        taught = config(tmp_path / 'teacher')
        taught.train_cfg.max_iters = STOP
        Runner.from_cfg(copy.deepcopy(taught)).train()
        checkpoint = str(tmp_path / f'teacher/iter_{STOP}.pth')
        teacher = dict(config=taught.to_dict(), checkpoint=checkpoint)
    whole = runner.from_cfg(config(tmp_path / 'whole', teacher))
    whole.train()
    torch.manual_seed(99)
    again = config(tmp_path / 'again', teacher)
    again.update(load_from=str(tmp_path / f'whole/iter_{STOP}.pth'), resume=True)
    resumed = runner.from_cfg(again)
    resumed.train()
    assert_same(resumed, whole)
    stored = torch.load(tmp_path / f'whole/iter_{STOP}.pth')['state_dict']
    assert any(key.startswith('teacher.') for key in stored) == (kind == 'EMA')
    if kind == 'frozen':
        assert resumed.model.teacher.network is not whole.model.teacher.network


@exact
def test_run_killed_in_a_checkpoint_goes_on(tmp_path):
    def config_in(name):
        cfg = config(tmp_path / name)
        cfg.default_hooks.checkpoint.interval = 1
        cfg.model.decode_head.loss_decode.class_prior = 'online'
        return cfg

    whole = Runner.from_cfg(config_in('whole'))
    whole.train()
    config_in('again').dump(tmp_path / 'killed.py')
    command = [sys.executable, '-W', 'ignore', '-c', KILLED, str(tmp_path / 'killed.py')]
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    killed = subprocess.run(command, env={**os.environ, 'PYTHONPATH': path}, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(RuntimeError):
        torch.load(tmp_path / f'again/iter_{STOP + 1}.pth')

    torch.manual_seed(99)
    again = config_in('again')
    again.resume = True
    resumed = Runner.from_cfg(again)
    resumed.train()
    assert_same(resumed, whole)
    assert resumed.model.decode_head.loss_decode.online_counts.sum() > 0


def test_a_fine_tuning_is_resumed_and_not_what_it_began_with(tmp_path):
    """``--resume`` with a ``load_from`` in the config: mmengine by itself resumes the latter."""
    cfg = config(tmp_path / 'pretrained')
    runs.train(cfg)
    cfg = config(tmp_path / 'run')
    cfg.load_from = str(tmp_path / f'pretrained/iter_{STEPS}.pth')
    cfg.train_cfg.max_iters = 1
    cfg.default_hooks.checkpoint.interval = 1
    began = runs.train(cfg, resume=True)  # nothing to resume: it begins with load_from
    assert began.iter == 1
    cfg.train_cfg.max_iters = 2
    resumed = runs.train(cfg, resume=True)
    assert resumed.iter == 2 and (tmp_path / 'run/iter_2.pth').is_file()
    # By mmengine's own way, from where the options say.
    other = config(tmp_path / 'other')
    other.train_cfg.max_iters = STEPS + 1
    named = {'load_from': str(tmp_path / f'pretrained/iter_{STEPS}.pth')}
    assert runs.train(other, resume=True, options=named).iter == STEPS + 1
    assert not (tmp_path / f'other/iter_{STOP}.pth').exists()
    own = config(tmp_path / 'own')
    own.train_cfg.max_iters, own.resume, own.load_from = STEPS + 1, True, named['load_from']
    assert runs.train(own, resume=True).iter == STEPS + 1
    assert not (tmp_path / f'own/iter_{STOP}.pth').exists()
