"""The studies in studies/ describe runs that can be trained."""

from pathlib import Path

import pytest
import torch
from masks import needs_mmdet
from mmengine.config import Config
from mmseg.registry import METRICS, MODELS
from study_runs import read_study
from tiny import ROOT, batch

import mmseg_ltmi

STUDIES = sorted(p for name in ('camvid', 'nyuv2') for p in (ROOT / 'studies').glob(f'{name}*.py'))


def build(cfg):
    """The model of a config without weights to download, and whether it waits for a prior."""
    cfg.pretrained = cfg.backbone.init_cfg = None
    model = MODELS.build(cfg)
    waiting = [m for m in model.modules() if getattr(m, 'needs_class_prior', False)]
    for module in waiting:
        counts = [1] * model.num_classes
        module.set_class_prior(mmseg_ltmi.ClassPrior(counts, image_counts=counts))
    return model.train(), bool(waiting)


@pytest.mark.parametrize('file', STUDIES, ids=lambda p: p.stem)
def test_every_row_builds_and_takes_a_step(file, tmp_path):
    if 'masks' in file.stem:
        needs_mmdet()
    torch.manual_seed(0)
    runs = [run for run in read_study(file, tmp_path).runs if run.seed == 0]
    assert len(runs) > 3
    for run in runs:
        teacher = run.config.model.get('teacher', {})
        if 'config' in teacher:
            trained = next(r for r in run.needs if r.name == Path(teacher.config).stem)
            assert Path(teacher.checkpoint).stem == f'iter_{trained.config.train_cfg.max_iters}'
            teacher.config = str(tmp_path / f'{trained.name}.py')
            trained.config.dump(teacher.config)
            model, _ = build(Config.fromfile(teacher.config).model)
            model.loss(*batch())  # the head then knows its prior too
            teacher.checkpoint = str(tmp_path / 'teacher.pth')
            torch.save(model.state_dict(), teacher.checkpoint)
        model, waited = build(run.config.model)
        if waited:
            assert any(hook.type == 'ClassPriorHook' for hook in run.config.custom_hooks)
        total, _ = model.parse_losses(model.loss(*batch()))
        total.backward()
        assert total.isfinite(), run.name
        # On part of CamVid's train set it is counted, so no metric may name that of all of it.
        known = {'nyuv2': 'nyuv2', 'camvid_all_drives': 'camvid'}
        known = next((prior for name, prior in known.items() if name in file.stem), None)
        metrics = [run.config.val_evaluator, *run.config.test_evaluator]
        assert all(METRICS.build(metric).class_prior == known for metric in metrics)
        # Each row differs from every other one.
        assert sum(r.config.to_dict() == run.config.to_dict() for r in runs) == 1, run.name
