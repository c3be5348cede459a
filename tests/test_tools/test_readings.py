"""What a test is read at, whoever says it: the command, the config, the checkpoint, views."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from mmseg_ltmi.apis import runs
from mmseg_ltmi.apis.choose import choose
from mmseg_ltmi.apis.explain import explain
from mmseg_ltmi.apis.split_data import split_loader
from mmseg_ltmi.prior_message import announced_reading


@pytest.fixture(scope='module')
def chosen(folder):
    """A choice that differs from the natural reading, its file, and a checkpoint that holds it."""
    found = choose(folder / 'small.py', folder / 'small.pth', choice='tau by mIoU')
    found = replace(found, point=replace(found.point, tau=0.7))
    found.reader.set_point(found.point)
    found.point.save(folder / 'point.json')
    found.embed(folder / 'small.pth', folder / 'embedded.pth')
    return found


@pytest.fixture
def swept(cfg):
    """With a sweep, and two views of an image on request."""
    prior = cfg.model.decode_head.loss_decode.class_prior
    sweep = dict(type='LogitAdjustmentSweep', taus=(0.0, 0.5), class_prior=prior)
    cfg.test_evaluator = [dict(type='LongTailIoUMetric', class_prior=prior), sweep]
    cfg.tta_model = dict(type='SegTTAModel')
    sizes = [dict(type='Resize', scale_factor=f, keep_ratio=True) for f in (1.0, 0.4)]
    views = [sizes, [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]
    load = dict(type='LoadImageFromFile')
    cfg.tta_pipeline = [load, dict(type='TestTimeAug', transforms=views)]
    return cfg


def measured(cfg, folder, checkpoint='small.pth', **how):
    return runs.test(cfg, folder / checkpoint, folder / 'test', **how)


@pytest.mark.parametrize('stock', [False, True], ids=['LTMI', 'stock'])
def test_a_sweep_begins_at_the_natural_posterior(folder, swept, chosen, stock):
    if stock:
        swept.model.decode_head.type = 'mmseg.FCNHead'
        swept.model.decode_head.pop('contrast')
    natural = measured(swept, folder)
    ways = [dict(operating_point=folder / 'point.json')]
    if not stock:
        ways += [dict(tau_test=0.7), dict(checkpoint='embedded.pth')]
    for way in ways:
        found = measured(swept, folder, **way)
        assert found['mIoU'] != natural['mIoU']
        for name, value in natural.items():
            if name.startswith('sweep/'):
                assert found[name] == pytest.approx(value, abs=0.011, nan_ok=True)


def test_a_sweep_is_of_all_views(folder, swept):
    found = measured(swept, folder, tta=True)
    assert found['sweep/tau0/mIoU'] == pytest.approx(found['mIoU'], abs=0.011)
    half = 'sweep/tau0.5/mIoU'
    assert found[half] != measured(swept, folder)[half]
    # At another reading: the mean of the natural posteriors is read, and swept from tau 0 on.
    read = measured(swept, folder, tta=True, tau_test=0.5)
    assert read['mIoU'] == pytest.approx(found[half], abs=0.011) != found['mIoU']
    assert read[half] == pytest.approx(found[half], abs=0.011)
    # mmsegmentation's own leaves the scores of one view.
    swept.model = ConfigDict(type='SegTTAModel', module=swept.model)
    swept.test_dataloader.dataset.pipeline = swept.tta_pipeline
    swept.work_dir, swept.load_from = str(folder / 'test'), str(folder / 'small.pth')
    with pytest.raises(ValueError, match='tta_model.type=LTMISegTTAModel'):
        Runner.from_cfg(swept).test()


def test_the_command_stands_over_config_and_checkpoint(folder, cfg, chosen):
    natural = measured(cfg, folder)['mIoU']
    assert measured(cfg, folder, 'embedded.pth')['mIoU'] != natural
    assert measured(cfg, folder, 'embedded.pth', tau_test=0.0)['mIoU'] == natural
    balanced = measured(cfg, folder, tau_test=1.0)['mIoU']
    assert measured(cfg, folder, 'embedded.pth', tau_test=1.0)['mIoU'] == balanced
    cfg.model.update(type='LTMIEncoderDecoder', operating_point=str(folder / 'point.json'))
    assert measured(cfg, folder, tau_test=0.0)['mIoU'] == natural


def test_a_natural_point_contradicts_a_tau(folder, cfg, chosen, tmp_path):
    replace(chosen.point, tau=0.0).save(tmp_path / 'natural.json')
    cfg.model.decode_head.tau_test = 0.5
    with pytest.raises(ValueError, match='tau_test=0.5 and the segmentor an operating point'):
        measured(cfg, folder, operating_point=tmp_path / 'natural.json')


def test_what_one_model_was_read_at_is_not_that_of_the_next(folder, swept):
    """The second says nothing of its reading."""
    stock = copy.deepcopy(swept)
    stock.model.type, stock.model.decode_head.type = 'mmseg.EncoderDecoder', 'mmseg.FCNHead'
    stock.model.decode_head.pop('contrast')
    stock.load_from, stock.work_dir = str(folder / 'small.pth'), str(folder / 'test')
    expected = Runner.from_cfg(copy.deepcopy(stock)).test()
    swept.model.decode_head.tau_test = 1.0
    swept.load_from, swept.work_dir = stock.load_from, stock.work_dir
    swept.test_evaluator = swept.test_evaluator[0]  # no sweep, which would forget it by itself
    Runner.from_cfg(swept).test()
    assert announced_reading(13).any()
    assert Runner.from_cfg(stock).test() == pytest.approx(expected, nan_ok=True)


def test_explain_is_of_the_reading_that_it_names(folder, cfg, chosen):
    found = explain(cfg, folder / 'embedded.pth')
    assert 'natural reading' in found.title
    rows = folder / 'rows.json'
    measured(cfg, folder, per_class=rows)
    assert_same_iou(found, rows)
    found = explain(cfg, folder / 'small.pth', operating_point=folder / 'point.json')
    assert 'point.json' in found.title
    measured(cfg, folder, operating_point=folder / 'point.json', per_class=rows)
    assert_same_iou(found, rows)
    with torch.no_grad():
        state = torch.load(folder / 'small.pth')
        state['state_dict']['decode_head.conv_seg.bias'] += 1
        torch.save(state, folder / 'other.pth')
    with pytest.raises(ValueError, match='is of another model'):
        explain(cfg, folder / 'other.pth', operating_point=folder / 'point.json')


def assert_same_iou(found, rows):
    expected = {row['class']: row['IoU'] for row in json.loads(rows.read_text())}
    for row in found.rows:
        if expected[row['class']] is not None:
            assert row['IoU'] == pytest.approx(expected[row['class']], abs=1e-6)


@pytest.mark.parametrize('inside', [False, True], ids=['sampled', 'sampled and pasted'])
def test_a_drawn_train_set_is_read_image_by_image(cfg, inside):
    own = cfg.train_dataloader.dataset
    expected = [batch['data_samples'][0].img_path for batch in split_loader(cfg, 'train')]
    if inside:
        *first, pack = own.pipeline
        own.pipeline = first
        paste = [dict(type='RareClassPaste', min_pixels=8), pack]
        own = dict(type='MultiImageMixDataset', dataset=own, pipeline=paste)
    cfg.train_dataloader.dataset = dict(type='RareClassDataset', dataset=own, min_pixels=8)
    found = [batch['data_samples'][0].img_path for batch in split_loader(cfg, 'train')]
    assert found == expected and len(set(found)) == 12
