"""K-Net's head, which wraps another head and uses only a part of it."""

import pytest
import torch
from masks import any_segmentor
from mmengine.runner import Runner
from mmseg.registry import MODELS
from own_data import config, write_data
from tiny import COUNTS, batch, total

from mmseg_ltmi.core.posterior import losses_of


def k_net(outside, inside):
    model = any_segmentor('IterativeDecodeHead')
    model.decode_head.type = outside
    if not outside.startswith('LTMI'):
        del model.decode_head['contrast']
    model.decode_head.kernel_generate_head.update(type='LTMIFCNHead', **inside)
    return model


@pytest.mark.parametrize('part, value', [('contrast', {}), ('region', {}), ('tau_test', 1.0)])
def test_what_has_no_effect_inside_is_refused(part, value):
    wanted = f'LTMIFCNHead has {part}, which has no effect there: give {part} to LTMIIterative'
    with pytest.raises(ValueError, match=wanted):
        MODELS.build(k_net('LTMIIterativeDecodeHead', {part: value}))
    MODELS.build(k_net('LTMIIterativeDecodeHead', {}))  # an LTMI head by itself may be inside


def test_an_online_prior_is_counted_once_for_all_stages():
    config = k_net('LTMIIterativeDecodeHead', {})
    online = dict(type='LTMILoss', class_prior=dict(type='online', decay=0.5))
    config.decode_head.kernel_generate_head.loss_decode = online
    model = MODELS.build(config).train()
    inputs, samples = batch()
    total(model.loss(inputs, samples)).backward()
    known = torch.stack([sample.gt_sem_seg.data for sample in samples]) < model.num_classes
    (loss,) = losses_of(model.decode_head)
    assert loss.online_counts.sum() == known.sum()


def test_a_run_refuses_it_in_a_stock_head(tmp_path, monkeypatch):
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    cfg = config(COUNTS)
    cfg.model = k_net('IterativeDecodeHead', dict(contrast={}))
    with pytest.raises(ValueError, match='LTMIFCNHead has contrast, which has no effect there'):
        Runner.from_cfg(cfg).train()
