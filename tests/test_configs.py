from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import METRICS, MODELS
from mmseg.structures import SegDataSample

import mmseg_ltmi
from mmseg_ltmi.models.losses import LogitAdjustedLoss

CONFIGS = Path(__file__).parents[1] / 'configs'
FILES = sorted(p for p in CONFIGS.rglob('*.py') if not {'_base_', 'studies'} & set(p.parts))


def without_weights(cfg):
    """The same config, with nothing to download."""
    cfg.pretrained = None
    if 'backbone' in cfg:
        cfg.backbone.init_cfg = None
    return cfg


def batch(num_classes, size=64):
    samples = []
    for _ in range(2):
        label = torch.randint(0, num_classes, (1, size, size))
        label[:, :5] = 255
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        sample.set_metainfo(dict(img_path='x.png', img_shape=(size, size)))
        samples.append(sample)
    return torch.randn(2, 3, size, size), samples


def fill_prior(model):
    """Give the model what ClassPriorHook would; whether there was need of it."""
    waiting = [m for m in model.modules() if getattr(m, 'needs_class_prior', False)]
    for module in waiting:
        module.set_class_prior(mmseg_ltmi.ClassPrior([1] * model.num_classes))
    return bool(waiting)


def with_teacher_weights(cfg, folder):
    """The same config, whose teacher has the weights that it starts with."""
    if cfg.teacher.get('config') is not None:
        assert Path(cfg.teacher.checkpoint).parts[-2] == Path(cfg.teacher.config).stem
        teacher = MODELS.build(without_weights(Config.fromfile(cfg.teacher.config).model))
        if fill_prior(teacher):
            teacher.train().loss(*batch(teacher.num_classes))  # the head then knows it too
        cfg.teacher.checkpoint = str(folder / 'teacher.pth')
        torch.save(teacher.state_dict(), cfg.teacher.checkpoint)
    return cfg


@pytest.mark.parametrize('file', FILES, ids=lambda p: p.stem)
def test_config_builds_and_steps(file, tmp_path):
    torch.manual_seed(0)
    cfg = Config.fromfile(file)
    # With one, mmengine removes it before it writes the next.
    assert cfg.default_hooks.checkpoint.get('max_keep_ckpts', -1) != 1
    if 'teacher' in cfg.model:
        with_teacher_weights(cfg.model, tmp_path)
    model = revert_sync_batchnorm(MODELS.build(without_weights(cfg.model)))
    if fill_prior(model):
        assert any(h.type == 'ClassPriorHook' for h in cfg.custom_hooks)
    model.train()
    losses = model.loss(*batch(model.num_classes))
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    gradients = [p.grad for p in model.backbone.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    if file.stem.startswith(('ltmi', 'distilled', 'ema')):
        adjusted = [m for m in model.modules() if isinstance(m, LogitAdjustedLoss)]
        assert adjusted
        assert all((m.tau, m.class_weight) == (0.5, 'inverse_sqrt') for m in adjusted)
        assert any('loss_contrast' in key for key in losses)
        keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
        assert keys['log_temperature'].decay_mult == 0
        for metric in cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else []:
            assert METRICS.build(metric).class_prior in file.parts


STUDIES = sorted((CONFIGS / 'studies').glob('*.py'))


@pytest.mark.parametrize('file', STUDIES, ids=lambda p: p.stem)
def test_every_row_of_a_study_builds_and_steps(file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(CONFIGS.parent / 'tools')
    from study import plan, read_study

    runs = [r for r in plan(read_study(file), file.parent, tmp_path) if r.seed == 0]
    assert len(runs) > 5
    for run in runs:
        teacher = run.config.model.get('teacher', {})
        if 'config' in teacher:
            row = next(r for r in run.needs if r.name == Path(teacher.config).stem)
            assert Path(teacher.checkpoint).stem == f'iter_{row.config.train_cfg.max_iters}'
            teacher.config = str(tmp_path / f'{row.name}.py')
            row.config.dump(teacher.config)
            with_teacher_weights(run.config.model, tmp_path)
        model = MODELS.build(without_weights(run.config.model))
        if fill_prior(model):
            assert any(h.type == 'ClassPriorHook' for h in run.config.custom_hooks)
        total, _ = model.parse_losses(model.train().loss(*batch(model.num_classes)))
        assert total.isfinite() and total.requires_grad, run.name
        # Each row differs from every other one.
        assert sum(r.config.to_dict() == run.config.to_dict() for r in runs) == 1, run.name
