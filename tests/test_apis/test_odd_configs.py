"""Configs of other formats, scopes and places go through every command."""

from mmengine.config import Config
from tiny import demo_run

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.cli import main

OURS = {
    'EncoderDecoder', 'SegDataPreProcessor', 'ResNetV1c', 'LTMIFCNHead', 'FCNHead', 'LTMILoss',
    'LongTailShapesDataset', 'LoadAnnotations', 'PackSegInputs', 'LongTailIoUMetric',
    'ClassPriorHook',
}  # fmt: skip


def with_scope(value):
    """Names as ``mmseg.Name``, throughout a config."""
    if isinstance(value, dict):
        value = {key: with_scope(part) for key, part in value.items()}
        if value.get('type') in OURS:
            value['type'] = f'mmseg.{value["type"]}'
        return value
    return [with_scope(part) for part in value] if isinstance(value, (list, tuple)) else value


def test_the_scope_of_another_project_and_paths_with_spaces_and_commas(tmp_path, capsys):
    folder = tmp_path / 'my runs, all'
    folder.mkdir()
    cfg = demo_run(folder / 'first', 1)
    data = dict(type='LongTailShapesDataset', split='test', num_images=6, size=(32, 32))
    data['data_root'] = str(folder / 'data, too')
    pipeline = [dict(type=t) for t in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')]
    sampler = dict(type='DefaultSampler', shuffle=False)
    for split in ('val', 'test'):
        cfg[f'{split}_dataloader'] = dict(
            batch_size=1, num_workers=0, sampler=sampler, dataset=dict(**data, pipeline=pipeline)
        )
        cfg[f'{split}_cfg'] = dict(type='ValLoop' if split == 'val' else 'TestLoop')
        cfg[f'{split}_evaluator'] = dict(type='LongTailIoUMetric')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    changed = with_scope(cfg.to_dict())
    changed['default_scope'] = 'mmengine'  # as of a project with registries of its own
    file, yaml = (str(folder / f'my config, 1.{suffix}') for suffix in ('json', 'yaml'))
    for name in (file, yaml):
        Config(changed).dump(name)

    work = folder / 'work dir, 1'
    checkpoint, prior = str(work / 'iter_1.pth'), str(folder / 'prior, 1.json')
    root = f"train_dataloader.dataset.data_root='{folder}/other data'"
    assert main(['count', yaml, '--out', prior, '--workers', '0', '--cfg-options', root]) == 0
    assert (folder / 'other data').is_dir()
    assert main(['train', file, '--work-dir', str(work)]) == 0
    rows = str(work / 'rows, 1.csv')
    assert main(['test', file, checkpoint, '--work-dir', str(work), '--per-class', rows]) == 0
    assert main(['choose', file, checkpoint, '--folds', '2', '--class-prior', prior]) == 0
    page = str(folder / 'page, 1.png')
    browse = ['browse', file, checkpoint, '--out', page, '--class-prior', prior]
    assert main([*browse, '--classes', 'background']) == 0
    assert main(['explain', yaml, checkpoint, '--class-prior', prior]) == 0
    assert (work / 'operating_point/operating_point.json').is_file()

    counted = ClassPrior.load(prior)
    ClassPrior(counted.pixel_counts, counted.classes[::-1]).save(folder / 'turned.json')
    turned = f'model.decode_head.loss_decode.class_prior="{folder}/turned.json"'
    assert main(['train', file, '--work-dir', str(work), '--cfg-options', turned]) == 1
    assert 'have their classes in another order' in capsys.readouterr().err
