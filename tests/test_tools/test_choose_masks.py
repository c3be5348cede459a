"""choose, and test with what it chose, for mask classifiers."""

import json

import pytest
import torch
from masks import mask_segmentor
from mmengine.config import Config
from mmengine.runner import Runner
from tiny import ROOT

from mmseg_ltmi.apis import runs
from mmseg_ltmi.cli import main
from mmseg_ltmi.core.posterior import IoURule
from mmseg_ltmi.evaluation import OperatingPointMetric
from mmseg_ltmi.evaluation.per_class import summary


def miou(cfg, checkpoint, folder, **how):
    runs.test(cfg, checkpoint, folder / 'test', per_class=folder / 'rows.json', **how)
    return summary(json.loads((folder / 'rows.json').read_text()))['mIoU']


@pytest.mark.parametrize('ltmi', [True, False], ids=['LTMI', 'stock'])
def test_choose_embed_and_use(folder, tmp_path, capsys, monkeypatch, ltmi):
    cfg = Config.fromfile(folder / 'small.py')
    loss = dict(type='LTMILoss', class_prior=str(folder / 'prior.json'))
    head = dict(loss_decode=loss) if ltmi else {}
    cfg.model = mask_segmentor(ltmi=ltmi, head=head, classes=13)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_iters=2, val_interval=9)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=2)
    cfg.log_level, cfg.work_dir = 'ERROR', str(tmp_path)
    cfg.dump(tmp_path / 'small.py')
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    torch.nn.init.normal_(runner.model.decode_head.cls_embed.weight, std=3)
    runner.train()

    # The network has learned so little that its own rule would be argmax.
    iou, union = torch.zeros(13), torch.logspace(0, -3, 13)
    rule = IoURule(iou, union, 0.5, 0.4)
    monkeypatch.setattr(OperatingPointMetric, 'fit', lambda *args: rule)
    files = [str(tmp_path / 'small.py'), str(tmp_path / 'iter_2.pth')]
    more = ['--class-prior', str(folder / 'prior.json')]
    embed = ['--embed', str(tmp_path / 'in.pth'), '--choose', 'IoU rule']
    assert main(['choose', *files, *more, *embed]) == 0
    assert 'test split, chosen on val' in capsys.readouterr().out
    point = tmp_path / 'operating_point/operating_point.json'
    content = json.loads(point.read_text())
    values = {name: each['mIoU'] for name, each in content['report']['values'].items()}
    assert content['rule'] == 'iou' and values['IoU rule'] != values['natural']
    expected = pytest.approx(values['IoU rule'], abs=0.011)
    assert miou(cfg, files[1], tmp_path, operating_point=point) == expected
    assert miou(cfg, tmp_path / 'in.pth', tmp_path) == expected
    assert miou(cfg, files[1], tmp_path) == pytest.approx(values['natural'], abs=0.011)

    assert main(['choose', *files, *more, '--folds', '3', '--force']) == 0
    assert 'cross-fitted in 3 folds' in capsys.readouterr().out
    content = json.loads(point.read_text())
    assert content['rule'] == 'tau' and content['report']['folds'] == 3

    monkeypatch.syspath_prepend(str(ROOT / 'tools/benchmarks'))
    from mask_readings import measure

    cfg.test_dataloader.num_workers = 0
    if not ltmi:
        with pytest.raises(SystemExit, match='has no shift_at: give the config of its LTMI form'):
            measure(cfg, files[1], 'test', [0.0])
        return
    found = measure(cfg, files[1], 'test', [0.0, 3.0])
    share, cheap, exact = found[0.0]
    assert share < 0.1 and cheap == pytest.approx(values['natural'], abs=0.011)
    assert exact == pytest.approx(cheap, abs=0.1)
    assert found[3.0][0] > 1
