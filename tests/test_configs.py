from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, METRICS, MODELS
from mmseg.structures import SegDataSample

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.losses import LogitAdjustedLoss, LTMILoss

CONFIGS = Path(__file__).parents[1] / 'configs'
FILES = sorted(p for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts)
LTMI = [p for p in FILES if p.stem.startswith(('distilled', 'ema', 'ltmi'))]


def skip_without_mmdet(file):
    if 'maskformer' in file.stem or 'mask2former' in file.stem:
        pytest.importorskip('mmdet.models', reason='mask classifiers need mmdet')


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
        module.set_class_prior(ClassPrior([1] * model.num_classes))
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
    skip_without_mmdet(file)
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
    if file in LTMI:
        adjusted = [m for m in model.modules() if isinstance(m, LogitAdjustedLoss)]
        assert adjusted and all(isinstance(m, LTMILoss) for m in adjusted)
        assert all((m.tau, m.class_weight) == (0.5, 'inverse_sqrt') for m in adjusted)
        assert any('loss_contrast' in key for key in losses)


@pytest.mark.parametrize('file', LTMI, ids=lambda p: p.stem)
def test_the_class_prior_is_that_of_the_data_set(file):
    skip_without_mmdet(file)
    cfg = Config.fromfile(file)
    name = cfg.ltmi_loss.get('class_prior')
    heads = cfg.model.decode_head
    heads = heads if isinstance(heads, list) else [heads]
    heads += [cfg.model.auxiliary_head] if 'auxiliary_head' in cfg.model else []
    assert all(head.loss_decode.get('class_prior') == name for head in heads)
    # The contrast takes the one of the loss.
    assert [head.contrast for head in heads if 'contrast' in head] == [{}]
    metrics = as_list(cfg.get('val_evaluator', [])) + as_list(cfg.test_evaluator)
    if name is None:
        assert any(hook.type == 'ClassPriorHook' for hook in cfg.custom_hooks)
        return
    assert name in file.parts
    classes = DATASETS.get(cfg.train_dataloader.dataset.type).METAINFO['classes']
    assert ClassPrior.load(name).num_classes == len(classes) == heads[-1].num_classes
    assert {METRICS.build(metric).class_prior for metric in metrics} == {name}


def as_list(value):
    return value if isinstance(value, list) else [value]


def test_a_config_is_what_a_user_would_write():
    text = (CONFIGS / 'ade20k/ltmi_upernet_r50_4xb4-160k_ade20k-512x512.py').read_text()
    assert len(text.splitlines()) <= 7
    # The contrast's temperature has no weight decay without being told.
    assert not any('log_temperature' in file.read_text() for file in CONFIGS.rglob('*.py'))


@pytest.mark.parametrize(
    'file', sorted(CONFIGS.rglob('metafile.yaml')), ids=lambda p: p.parent.stem
)
def test_a_metafile_has_the_results_of_its_readme(file):
    page = (file.parent / 'README.md').read_text().splitlines()
    models = load(file)['Models']
    assert models
    for model in models:
        metrics = model['Results'][0]['Metrics']
        figures = f'{metrics["mIoU"]} / {metrics["mIoU of the rarest third"]}'
        rows = [line for line in page if f'({Path(model["Config"]).name})' in line]
        assert rows and all(figures in row for row in rows)
