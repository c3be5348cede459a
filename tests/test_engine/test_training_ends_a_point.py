"""A run that trains drops an operating point before anyone copies the model."""

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from mmseg.registry import MODELS
from own_data import NAMES, config, write_data
from tiny import COUNTS

from mmseg_ltmi.core.posterior import ClassMemory, OperatingPoint
from mmseg_ltmi.models.segmentors import network_fingerprint


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def chosen(cfg):
    """A model of the config with an operating point and its memory, as choose makes them."""
    model = MODELS.build(cfg.model)
    memory = ClassMemory(torch.randn(40, 8), torch.arange(40) % 4, 4, 0.1)
    memory.fingerprint = network_fingerprint(model)
    memory.save('memory.pth')
    log_prior = (-1.0, -1.0, -2.0, -3.0)
    memory = dict(memory_weight=0.5, memory='memory.pth')
    point = OperatingPoint('tau', tuple(NAMES), log_prior, tau=0.3, **memory)
    model.set_operating_point(point.to_dict())
    return model


def trained(cfg, **options):
    cfg.custom_hooks = [dict(type='EMAHook', update_buffers=True)]
    cfg.update(options)
    runner = Runner.from_cfg(cfg)
    runner.train()
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    return runner, hook.ema_model.module


@pytest.mark.parametrize('ltmi', [True, False], ids=['ltmi', 'stock'])
@pytest.mark.parametrize('how', ['config', 'load_from', 'resume'])
def test_a_moving_average_is_of_the_model_without_it(how, ltmi):
    cfg = config(COUNTS, type='LTMIEncoderDecoder')
    if not ltmi:
        del cfg.model.decode_head.contrast
        cfg.model.decode_head.type = 'FCNHead'
    model = chosen(cfg)
    options = {}
    if how == 'config':
        cfg.model.operating_point = model._point.to_dict()
    elif how == 'load_from':
        torch.save(dict(meta={}, state_dict=model.state_dict()), 'chosen.pth')
        options = dict(load_from='chosen.pth')
    else:
        trained(cfg)
        saved = torch.load('work/iter_1.pth', weights_only=False)
        held = {k: v for k, v in model.state_dict().items() if 'score_reader.' in k}
        saved['state_dict'].update(held)
        saved['ema_state_dict'].update({f'module.{name}': value for name, value in held.items()})
        torch.save(saved, 'chosen.pth')
        cfg.train_cfg.max_iters = 2
        options = dict(load_from='chosen.pth', resume=True)
    runner, average = trained(cfg, **options)
    for each in (runner.model, average):
        assert not each.reader.has_point and each.reader.memory is None and each._point is None
    names = [name for name, _ in runner.model.named_buffers()]
    assert names == [name for name, _ in average.named_buffers()]
    written = torch.load(f'work/iter_{cfg.train_cfg.max_iters}.pth', weights_only=False)
    assert not any('.memory.' in name for name in written['state_dict'])
    again = MODELS.build({**cfg.model, 'operating_point': None})
    again.load_state_dict(written['state_dict'])
    assert not again.reader.has_point and again.reader.has_shift
