"""A small model, its data and its config, for what looks at a trained model."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.datasets import LongTailShapesDataset

CONFIG = Path(__file__).parents[2] / 'configs/demo/ltmi_fcn-r18_400_shapes-128x128.py'
PIPELINE = [dict(type='mmseg.LoadAnnotations')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A config with small splits and a checkpoint whose scores differ from pixel to pixel."""
    folder = tmp_path_factory.mktemp('model')
    data = dict(data_root=str(folder / 'data'), size=(64, 64))
    for split, number in (('train', 12), ('val', 5), ('test', 6)):
        LongTailShapesDataset(split=split, num_images=number, pipeline=PIPELINE, **data)
    train = LongTailShapesDataset(split='train', num_images=12, pipeline=PIPELINE, **data)
    ClassPrior.from_dataset(train).save(folder / 'prior.json')
    config = f"""
_base_ = '{CONFIG}'
_prior = '{folder}/prior.json'
_data = dict(data_root='{folder}/data', size=(64, 64))
train_dataloader = dict(dataset=dict(num_images=12, **_data))
test_dataloader = dict(num_workers=0, dataset=dict(num_images=6, **_data))
val_dataloader = _base_.test_dataloader.copy()
val_dataloader.update(dataset=dict(**_base_.test_dataloader.dataset))
val_dataloader['dataset'].update(split='val', num_images=5, **_data)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='LongTailIoUMetric')
model = dict(
    decode_head=dict(loss_decode=dict(class_prior=_prior), contrast=dict(class_prior=_prior))
)
"""
    (folder / 'small.py').write_text(config)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(folder / 'small.py').model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=3)
    torch.save({'state_dict': model.state_dict(), 'meta': {'iter': 7}}, folder / 'small.pth')
    return folder


@pytest.fixture
def cfg(folder):
    return Config.fromfile(folder / 'small.py')
