"""What looks at a trained model: choose, test with its result, browse and explain."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.evaluation.metrics import citys_metric
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_ltmi.apis import choose, runs
from mmseg_ltmi.apis.browse import browse
from mmseg_ltmi.apis.config_changes import read_config
from mmseg_ltmi.apis.convert import convert
from mmseg_ltmi.apis.explain import explain
from mmseg_ltmi.apis.split_data import split_dataset, split_loader
from mmseg_ltmi.apis.trained_model import class_prior_of, load_model
from mmseg_ltmi.cli import main
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.evaluation import ConfusionMetric, choosing
from mmseg_ltmi.evaluation.per_class import summary

ROOT = Path(__file__).parents[2]


def miou(cfg, checkpoint, folder, **how):
    """What a test finds, over the classes that the labels hold."""
    runs.test(cfg, checkpoint, folder / 'test', per_class=folder / 'rows.json', **how)
    return summary(json.loads((folder / 'rows.json').read_text()))['mIoU']


def test_choose_report_embed_and_use(folder, cfg, capsys):
    files = [str(folder / 'small.py'), str(folder / 'small.pth')]
    status = main(['choose', *files, '--embed', str(folder / 'in.pth'), '--choose', 'IoU rule'])
    shown = capsys.readouterr()
    assert status == 0 and 'test split, chosen on val' in shown.out and 'WARNING' not in shown.err
    chosen = folder / 'operating_point'  # beside the checkpoint
    content = json.loads((chosen / 'operating_point.json').read_text())
    values = content['report']['values']
    assert set(values) >= {'natural', 'tau by mIoU', 'IoU rule'} and content['rule'] == 'iou'
    assert (chosen / 'curves.png').stat().st_size > 5000

    # The report says what a test finds, from the file and from the checkpoint.
    expected = pytest.approx(values['IoU rule']['mIoU'], abs=0.011)
    point = chosen / 'operating_point.json'
    assert miou(cfg, folder / 'small.pth', folder, operating_point=point) == expected
    assert miou(cfg, folder / 'in.pth', folder) == expected
    rows = json.loads((chosen / 'per_class/IoU_rule.json').read_text())
    assert len(rows) == 13
    embedded = torch.load(folder / 'in.pth')
    assert embedded['meta'] == {'iter': 7}

    # A second choice needs --force, and goes to the work dir that is named.
    assert main(['choose', *files]) == 1
    assert 'give --force' in capsys.readouterr().err
    again = ['choose', *files, '--report', 'test', '--folds', '3', '--choose', 'tau by mAcc']
    again += ['--work-dir', str(folder / 'work')]
    assert main(again) == 0 and 'cross-fitted in 3 folds' in capsys.readouterr().out
    work = folder / 'work/operating_point'
    assert json.loads((work / 'operating_point.json').read_text())['rule'] == 'tau'
    assert main([*again, '--force', '--folds', '1', '--select', 'test']) == 0
    shown = capsys.readouterr()
    assert 'WARNING: chosen and reported on the same split (test)' in shown.err
    assert f'in {work}/operating_point.json' in shown.out and 'tau_test=' in shown.out


@pytest.fixture
def told():
    return []


@pytest.fixture
def warn(told):
    """Keeps what is told of images, but not of frequencies: six images differ by chance."""
    return lambda text: None if 'as frequent as in the class prior' in text else told.append(text)


def test_the_images_count_and_not_the_names_of_the_splits(folder, cfg, told, warn):
    cfg.val_dataloader.dataset = cfg.test_dataloader.dataset.copy()
    cfg.val_dataloader.dataset.indices = [4, 5]
    choose(cfg, folder / 'small.pth', warn=warn)
    assert len(told) == 1 and '2 of the 6 of test are in val too' in told[0]
    assert 'cross-fit with --folds 5' in told[0]
    cfg.test_dataloader.dataset.indices = [0, 1, 2]
    choose(cfg, folder / 'small.pth', warn=warn)
    assert len(told) == 1


def test_the_same_images_are_cross_fitted_by_default(folder, cfg, told, warn):
    """As in a data set without labels for testing, whose test split is val."""
    cfg.val_dataloader = cfg.test_dataloader
    found = choose(cfg, folder / 'small.pth', warn=warn)
    assert found.title == 'test split, cross-fitted in 5 folds, as val has the same images'
    folded = choose(cfg, folder / 'small.pth', folds=5, warn=warn)
    assert found.values == folded.values and found.point.report['folds'] == 5 and not told
    same = choose(cfg, folder / 'small.pth', select='test', warn=warn)
    assert same.title == 'test split, cross-fitted in 5 folds' and not told
    pixels = [[row['pixels'] for row in rows] for rows in same.rows.values()]
    assert all(of_point == pixels[0] for of_point in pixels)  # also where a sample was measured
    for folds in (0, 1):
        found = choose(cfg, folder / 'small.pth', folds=folds, warn=warn)
        assert found.title == 'test split, chosen on val' and found.point.report['folds'] == 0
    assert len(told) == 2 and '6 of the 6 of test are in val too' in told[1]
    cfg.test_dataloader.dataset.indices = [0]  # not to be divided
    choose(cfg, folder / 'small.pth', max_values=2**12, warn=warn)
    assert len(told) == 3


def test_the_default_choice_says_what_it_went_by(folder, cfg):
    told = []
    found = choose(cfg, folder / 'small.pth', warn=told.append)
    assert found.name in found.estimates and found.point.report['choice'] == found.name
    assert choosing.best_estimate(found.estimates) == found.name
    header, row = (found.table.splitlines()[i] for i in (3, 5))
    assert 'mIoU of folds' in header and "at the prior's frequencies" in header
    assert [float(v) for v in row.split('|')[-3:-1]] == pytest.approx(
        found.estimates['natural'], abs=0.01
    )
    assert not told
    choose(cfg, folder / 'small.pth', choice='natural', class_prior=[1] * 13, warn=told.append)
    assert len(told) == 1 and 'the classes of the val split are not as frequent as' in told[0]
    assert 'in the prior 7.7 %' in told[0]
    named = choose(cfg, folder / 'small.pth', choice='natural', warn=told.append)
    assert not named.estimates and 'mIoU of folds' not in named.table
    cfg.val_dataloader.dataset.indices = [0]  # not to be divided
    assert choose(cfg, folder / 'small.pth', max_values=2**12, warn=told.append).name == 'natural'


@DATASETS.register_module(force=True)
class EverySecond(torch.utils.data.Dataset):
    """A wrapper without metainfo that leaves images out."""

    def __init__(self, dataset):
        self.dataset = DATASETS.build(dataset)
        self.indices = range(0, len(self.dataset), 2)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.dataset[self.indices[index]]


def test_a_wrapper_that_leaves_images_out_keeps_them_out(folder, cfg):
    inner = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='mmseg.EverySecond', dataset=inner)
    found = explain(cfg, folder / 'small.pth').rows
    page = browse(cfg, [folder / 'small.pth'], classes=['disc', 'background'], num_images=20)
    assert len(page.images) == 3
    chosen = choose(cfg, folder / 'small.pth').values
    cfg.test_dataloader.dataset = {**inner, 'indices': [0, 2, 4]}
    assert str(found) == str(explain(cfg, folder / 'small.pth').rows)  # NaN is not itself
    assert str(chosen) == str(choose(cfg, folder / 'small.pth').values)


@pytest.mark.parametrize('old', [False, True], ids=['new', 'earlier version'])
def test_embedded_in_a_checkpoint_whatever_it_held(folder, cfg, tmp_path, old):
    """Also where it is of an earlier version, holds an earlier choice, or is of a stock head."""
    found = choose(cfg, folder / 'small.pth', choice='tau by mIoU')
    found = replace(found, point=replace(found.point, tau=1.0))
    found.reader.set_point(found.point)
    state = torch.load(folder / 'small.pth')['state_dict']
    if old:
        state = {k.replace('score_reader', 'inference_prior'): v for k, v in state.items()}
        state |= {'decision.shift': torch.full((13,), 9.0), 'decision.iou': torch.rand(13)}
        state['decision.union'] = torch.rand(13) + 1
    torch.save({f'module.{k}': v for k, v in state.items()}, tmp_path / 'a.pth')
    found.embed(tmp_path / 'a.pth', tmp_path / 'b.pth')
    balanced = miou(cfg, folder / 'small.pth', tmp_path, tau_test=1.0)
    assert miou(cfg, tmp_path / 'b.pth', tmp_path) == balanced
    model = load_model(read_config(cfg), tmp_path / 'b.pth')
    assert not model.reader.has_point  # a new choice begins with the natural posterior


def test_a_stock_checkpoint_in_a_config_with_an_ltmi_head(folder, cfg, tmp_path):
    state = torch.load(folder / 'small.pth')['state_dict']
    state = {k: v for k, v in state.items() if 'contrast' not in k and 'score_reader' not in k}
    torch.save(state, tmp_path / 'stock.pth')
    found = choose(cfg, tmp_path / 'stock.pth', choice='natural')
    found.embed(tmp_path / 'stock.pth', tmp_path / 'embedded.pth')
    natural = found.values['natural']['mIoU']
    for checkpoint in ('stock.pth', 'embedded.pth'):
        assert miou(cfg, tmp_path / checkpoint, tmp_path) == pytest.approx(natural, abs=0.011)


def test_a_stock_head_and_wrapped_data_sets(folder, cfg, tmp_path):
    """The scores of a stock head are read by the segmentor; each image counts once."""
    cfg.model.decode_head.type = 'mmseg.FCNHead'
    cfg.model.decode_head.pop('contrast')
    cfg.model.type = 'mmseg.EncoderDecoder'
    plain = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=plain)
    train = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[{**train, 'indices': [0, 1]}, dict(type='RepeatDataset', times=2, dataset=train)],
    )
    model = load_model(read_config(cfg), folder / 'small.pth')
    torch.save(model.state_dict(), tmp_path / 'stock.pth')
    found = choose(cfg, tmp_path / 'stock.pth', select='train', choice='IoU rule')
    found.embed(tmp_path / 'stock.pth', tmp_path / 'embedded.pth')
    assert found.reader_prefix == 'score_reader.'
    cfg.test_dataloader.dataset = plain
    expected = pytest.approx(found.values['IoU rule']['mIoU'], abs=0.011)
    assert miou(cfg, tmp_path / 'embedded.pth', tmp_path) == expected

    loader = split_loader(read_config(cfg), 'train')
    assert len(loader) == 14
    parts = split_dataset(cfg, 'train')['datasets']
    assert [part['pipeline'] for part in parts] == [plain.pipeline] * 2
    page = browse(cfg, [folder / 'small.pth'], split='train', classes=['disc'], num_images=20)
    # By the two paths to it, an image of both parts is there twice.
    assert len(page.images) <= 14 and page.tail == [1]


def test_browse_tail(folder, capsys):
    page = folder / 'tail.png'
    files = [str(folder / 'small.py'), str(folder / 'small.pth')]
    more = ['--num-images', '2', '--out', str(page), '--classes']
    assert main(['browse', *files, *more, 'disc']) == 0
    assert '2 images' in capsys.readouterr().out and page.stat().st_size > 20000
    assert main(['browse', *files, *more, 'cat', '--force']) == 1
    assert "unknown classes ['cat']" in capsys.readouterr().err
    page.unlink()
    assert main(['browse', *files, *more[:2]]) == 0 and page.is_file()  # beside the checkpoint
    assert main(['browse', *files, *more[:2]]) == 1 and 'give --force' in capsys.readouterr().err


def test_browse_two_of_a_name(folder, cfg, tmp_path):
    other = tmp_path / folder.name / 'small.pth'
    other.parent.mkdir()
    content = torch.load(folder / 'small.pth')
    classes = LongTailShapesDataset.METAINFO['classes']
    content['meta'] = dict(dataset_meta=dict(classes=classes))
    torch.save(content, other)
    page = browse(cfg, [folder / 'small.pth', other], num_images=1)
    assert len(page.images[0].maps) == 3  # the label, and one of each
    content['meta']['dataset_meta']['classes'] = classes[::-1]
    torch.save(content, other)
    with pytest.raises(ValueError, match=f'{folder.name}/small.pth.* in another order'):
        browse(cfg, [folder / 'small.pth', other], num_images=1)


def test_browse_prepares_images_as_each_config_does(folder, cfg):
    small = copy.deepcopy(cfg)
    resize = dict(type='Resize', scale=(32, 32))
    pipeline = small.test_dataloader.dataset.pipeline
    small.test_dataloader.dataset.pipeline = [pipeline[0], resize, *pipeline[1:]]
    files = [folder / 'small.pth'] * 2
    how = dict(num_images=1, tau_test=0.8)
    alone = browse(small, files[:1], **how).images[0]
    page = browse(cfg, files, other_config=small, **how).images[0]
    _, first, second = page.maps.values()
    assert (second == list(alone.maps.values())[1]).all() and (first != second).any()
    small.test_dataloader.dataset.data_root = os.path.relpath(folder / 'data')  # the same files
    browse(cfg, files, other_config=small, **how)
    small.test_dataloader.dataset.indices = 3
    with pytest.raises(ValueError, match='the second config has other images in this split'):
        browse(cfg, files, other_config=small, num_images=1)


def test_browse_reads_each_model_by_its_own_prior(folder, cfg):
    other = copy.deepcopy(cfg)
    counts = [10.0**i for i in range(13)]
    other.model.decode_head.loss_decode.class_prior = counts
    other.model.decode_head.contrast.class_prior = counts
    other.model.decode_head.pop('class_prior', None)
    how = dict(num_images=1, tau_test=1.0, classes=['disc'])
    files = [folder / 'small.pth'] * 2
    first, second = list(browse(cfg, files, other_config=other, **how).images[0].maps.values())[1:]
    for config, expected in ((cfg, first), (other, second)):
        alone = browse(config, files[:1], **how).images[0].maps
        assert (list(alone.values())[1] == expected).all()


def test_one_score_has_no_posterior_to_read(folder, cfg):
    own = ('contrast', 'class_prior', 'tau_test', 'loss_decode', 'num_classes')
    head = {name: v for name, v in cfg.model.decode_head.items() if name not in own}
    head.update(type='mmseg.FCNHead', num_classes=2, out_channels=1, threshold=0.3)
    head.update(loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    cfg.model.decode_head = head
    with pytest.raises(ValueError, match='the model gives a single score .out_channels=1.'):
        browse(cfg, [folder / 'small.pth'])


def test_a_data_preprocessor_beside_the_model(folder, cfg):
    expected = str(explain(cfg, folder / 'small.pth').rows)
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    assert str(explain(cfg, folder / 'small.pth').rows) == expected


def test_explain_classes(folder, cfg, capsys):
    tool = ROOT / 'tools/analysis/explain_classes.py'
    files, file = [folder / 'small.py', folder / 'small.pth'], folder / 'a.json'
    command = [sys.executable, '-W', 'ignore', tool, *files, '--json', file, '--work-dir', 'none']
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'test split, natural reading, %, near is within 3 pixels' in done.stdout
    rows = {row['class']: row['IoU'] for row in json.loads(file.read_text())}
    miou(cfg, folder / 'small.pth', folder)
    for row in json.loads((folder / 'rows.json').read_text()):
        if row['IoU'] is not None:
            assert rows[row['class']] == pytest.approx(row['IoU'], abs=1e-6)
    options = ['--split', 'val', '--class-prior', 'x']
    assert main(['explain', *map(str, files), *options]) == 1
    assert "'x'" in capsys.readouterr().err


def test_a_split_without_labels(folder, cfg):
    load = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    cfg.test_dataloader.dataset.pipeline = load
    for look in (choose, explain):
        with pytest.raises(ValueError, match='the test split has no labels to compare with'):
            look(cfg, folder / 'small.pth')
    with pytest.raises(ValueError, match='no LoadAnnotations'):
        browse(cfg, [folder / 'small.pth'])
    # A data set of images alone, whose pipeline would load labels.
    cfg.test_dataloader.dataset = dict(
        type='BaseSegDataset',
        data_prefix=dict(img_path=f'{folder}/data/test/img_dir'),
        metainfo=dict(classes=('a', 'b')),
        pipeline=[load[0], dict(type='LoadAnnotations'), load[1]],
        img_suffix='.png',
    )
    images = next((folder / 'data').rglob('*.png')).parent
    cfg.test_dataloader.dataset.data_prefix.img_path = str(images)
    with pytest.raises(ValueError, match='the test split has no labels to compare with'):
        split_loader(read_config(cfg), 'test')
    image = cfg.test_dataloader.dataset.pop('data_prefix')['img_path']
    cfg.test_dataloader.dataset.data_prefix = dict(img_path=image, seg_map_path=image)
    for look in (choose, explain, by_testing(folder)):  # images as label maps
        with pytest.raises(ValueError, match=r'\.png has the shape .*64, 3\): a label map has one'):
            look(cfg, folder / 'small.pth')
    cfg.test_dataloader.dataset.data_prefix = dict(img_path=str(folder / 'none'))
    (folder / 'none').mkdir()
    for look in (choose, explain, by_browsing, by_testing(folder)):
        with pytest.raises(ValueError, match='the test split has no images .*none'):
            look(cfg, folder / 'small.pth')
    cfg.pop('test_dataloader')
    with pytest.raises(ValueError, match='no test_dataloader: choose another split'):
        explain(cfg, folder / 'small.pth')
    with pytest.raises(ValueError, match='no test_dataloader: .*--select val --report val'):
        choose(cfg, folder / 'small.pth')
    cfg.pop('test_evaluator')
    with pytest.raises(ValueError, match='no test_dataloader and no test_evaluator, which test'):
        runs.test(cfg, folder / 'small.pth', folder / 'test')


def test_without_a_val_split_one_cross_fits(folder, cfg):
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg.pop(key)
    with pytest.raises(ValueError, match='no val_dataloader: .*--select test --report test'):
        choose(cfg, folder / 'small.pth')
    assert 'cross-fitted in 5 folds' in choose(cfg, folder / 'small.pth', 'test').title


@pytest.mark.parametrize(
    'kind, weights, is_said',
    [
        ('EncoderDecoder', [1, 2, 3, 4, 5, 6, 7, 8], True),
        ('LTMIEncoderDecoder', [1, 2, 3, 4, 5, 6, 7, 8], False),  # as mmsegmentation reads it
        ('EncoderDecoder', None, False),
    ],
)
def test_a_test_says_where_mmsegmentation_shows_other_scores(
    folder, cfg, tmp_path, kind, weights, is_said
):
    cfg.experiment_name = tmp_path.name  # runs of one name in one second share a log
    cfg.model.type = kind
    cfg.model.decode_head.type = 'FCNHead'
    cfg.model.decode_head.pop('contrast')
    number = cfg.model.decode_head.num_classes
    loss = dict(type='CrossEntropyLoss', class_weight=weights and (weights * number)[:number])
    cfg.model.decode_head.loss_decode = loss
    state = torch.load(folder / 'small.pth', weights_only=False)['state_dict']
    state = {key: value for key, value in state.items() if 'score_reader' not in key}
    torch.save(state, tmp_path / 'stock.pth')  # as if it were trained without this package
    runs.test(cfg, tmp_path / 'stock.pth', tmp_path / 'test')
    log = next((tmp_path / 'test').glob('*/*.log')).read_text()
    assert ("mmsegmentation's own test shows the raw scores" in log) == is_said


def test_the_prior_is_of_the_classes_of_the_data_set(folder, cfg):
    model = load_model(read_config(cfg), folder / 'small.pth')
    prior = ClassPrior.load(folder / 'prior.json')
    classes = prior.classes
    meta = dict(classes=classes, reduce_zero_label=False, label_map=None)
    assert class_prior_of(None, cfg, model, meta).classes == classes
    turned = ClassPrior(prior.pixel_counts, classes[::-1])
    with pytest.raises(ValueError, match='their classes in another order'):
        class_prior_of(turned, cfg, model, meta)
    reduced = ClassPrior(prior.pixel_counts, classes, labels=dict(reduce_zero_label=True))
    with pytest.raises(
        ValueError, match='class prior .*=True, the data set has reduce_zero_label=F'
    ):
        choose(cfg, folder / 'small.pth', class_prior=reduced)
    model.reader.log_prior.fill_(torch.nan)
    cfg.test_evaluator = [dict(type='IoUMetric'), dict(type='x', class_prior=[1] * 13)]
    assert class_prior_of(None, cfg, model, meta).pixel_counts.tolist() == [1] * 13
    cfg.test_evaluator = cfg.val_evaluator = None
    with pytest.raises(ValueError, match='no class prior is known.*mmseg-ltmi count'):
        class_prior_of(None, cfg, model, meta)


def test_the_natural_posterior_is_measured_whatever_the_config_says(folder, cfg):
    natural = choose(cfg, folder / 'small.pth').values
    cfg.model.decode_head.tau_test = 1.0
    assert choose(cfg, folder / 'small.pth').values == natural
    for wrong in (dict(folds=-1), dict(choice='x'), dict(max_values=0)):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
            choose(cfg, folder / 'small.pth', **wrong)


def test_the_figures_are_shown_whatever_becomes_of_the_files(folder, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, 'No space left on device')

    files = [str(folder / 'small.py'), str(folder / 'small.pth')]
    monkeypatch.setattr(os, 'replace', full)
    for command in (
        ['choose', *files, '--out', str(tmp_path / 'point')],
        ['explain', *files, '--json', str(tmp_path / 'a.json')],
        ['count', files[0], '--out', str(tmp_path / 'b.json'), '--workers', '0', '--no-cache'],
    ):
        assert main(command) == 1
        shown = capsys.readouterr()
        assert '| ' in shown.out and 'No space left on device' in shown.err
    monkeypatch.undo()
    assert main(['explain', *files, '--json', str(tmp_path / 'a.json')]) == 0
    assert f'figures in {tmp_path}/a.json' in capsys.readouterr().out
    # What a full disk interrupts leaves a checkpoint that was there as it was.
    found = choose(*files, choice='natural')
    (tmp_path / 'in.pth').write_bytes(b'precious')
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left'):
        found.embed(files[1], tmp_path / 'in.pth')
    with pytest.raises(OSError, match='No space left'):
        convert(files[1], tmp_path / 'in.pth')
    assert (tmp_path / 'in.pth').read_bytes() == b'precious'
    with pytest.raises(ValueError, match='small.pth is the checkpoint itself'):
        found.embed(files[1], files[1])


@pytest.mark.parametrize('content', [b'', b'no checkpoint', None], ids=['empty', 'text', 'cut'])
def test_a_file_that_is_no_checkpoint(folder, cfg, tmp_path, content, capsys):
    bad, config = tmp_path / 'bad.pth', str(folder / 'small.py')
    bad.write_bytes((folder / 'small.pth').read_bytes()[:9000] if content is None else content)
    for command in (
        ['test', config, str(bad), '--work-dir', str(tmp_path)],
        ['choose', config, str(bad)],
        ['explain', config, str(bad)],
        ['browse', config, str(bad), '--out', str(tmp_path / 'a.png')],
        ['convert', str(bad), str(tmp_path / 'b.pth')],
        ['train', config, '--work-dir', str(tmp_path), '--cfg-options', f'load_from={bad}'],
        ['train', config, '--work-dir', str(tmp_path), '--resume'],
    ):
        (tmp_path / 'last_checkpoint').write_text(str(bad))
        assert main(command) == 1
        error = capsys.readouterr().err
        assert f'mmseg-ltmi {command[0]}: {bad} cannot be read as a checkpoint' in error


def by_browsing(cfg, checkpoint):
    return browse(cfg, [checkpoint])


def by_testing(folder):
    return lambda cfg, checkpoint: runs.test(cfg, checkpoint, folder / 'test')


def test_a_checkpoint_with_other_classes_is_refused(folder, cfg):
    state = torch.load(folder / 'small.pth')['state_dict']
    del state['decode_head.conv_seg.bias']
    torch.save({'state_dict': state}, folder / 'other.pth')
    for look in (load_model, by_testing(folder)):
        with pytest.raises(ValueError, match='it lacks 1 of its tensors.*conv_seg.bias'):
            look(read_config(cfg), folder / 'other.pth')
    state['decode_head.conv_seg.weight'] = torch.zeros(19, 64, 1, 1)
    torch.save({'state_dict': state}, folder / 'other.pth')
    with pytest.raises(ValueError, match=r'of another model.*\(19, 64, 1, 1\)'):
        load_model(read_config(cfg), folder / 'other.pth')


@pytest.mark.parametrize('meta', ['dataset_meta', 'CLASSES'])  # as mmsegmentation 1.x and 0.x do
def test_a_data_set_with_classes_in_another_order_is_refused(folder, cfg, tmp_path, meta, caplog):
    content = torch.load(folder / 'small.pth')
    classes = LongTailShapesDataset.METAINFO['classes']

    def trained_on(names):
        content['meta'] = {meta: {'classes': names} if meta == 'dataset_meta' else names}
        torch.save(content, tmp_path / 'a.pth')
        return tmp_path / 'a.pth'

    turned = trained_on((*classes[:-2], classes[-1], classes[-2]))
    for look in (by_testing(tmp_path), choose, explain):
        with pytest.raises(ValueError, match='the checkpoint and .* in another order.*metainfo'):
            look(cfg, turned)
    fewer = trained_on(classes[:2])
    for look in (by_testing(tmp_path), choose):
        with pytest.raises(ValueError, match=f'checkpoint has 2 classes, .* {len(classes)}'):
            look(cfg, fewer)
    by_testing(tmp_path)(cfg, trained_on(('other word', *classes[1:])))
    assert 'other names for some classes' in caplog.text


def test_a_prior_of_another_number_of_classes_than_the_data_set(folder, cfg):
    model = load_model(read_config(cfg), folder / 'small.pth')
    with pytest.raises(ValueError, match='the model has 13 classes, the data set has 2'):
        class_prior_of(None, cfg, model, dict(classes=('a', 'b')))
    with pytest.raises(ValueError, match='the class prior has 3 classes, the data set has 13'):
        class_prior_of([3, 2, 1], cfg, model, dict(classes=tuple('abcdefghijklm')))


def own_split(folder, tmp_path, label, load):
    """A test split of one image of 64x64 and its label map."""
    image = next((folder / 'data').rglob('*.png'))
    for name, file in (('img', image), ('ann', label)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / '0.png').write_bytes(file.read_bytes())
    return dict(
        type='BaseSegDataset',
        data_prefix=dict(img_path=str(tmp_path / 'img'), seg_map_path=str(tmp_path / 'ann')),
        metainfo=dict(classes=LongTailShapesDataset.METAINFO['classes']),
        pipeline=[dict(type='LoadImageFromFile'), *load, dict(type='PackSegInputs')],
        img_suffix='.png',
    )


def test_labels_that_nothing_can_be_judged_by(folder, cfg, tmp_path):
    label, load = tmp_path / 'label.png', dict(type='LoadAnnotations')
    Image.fromarray(np.full((64, 64), 300, np.uint16)).save(label)
    split = own_split(folder, tmp_path, label, [load])
    cfg.test_dataloader.dataset = split
    for look in (choose, explain, by_testing(folder)):
        with pytest.raises(ValueError, match=r'ann/0.png is not read as it is: it has the label 3'):
            look(cfg, folder / 'small.pth')
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / 'ann/0.png')
    split['pipeline'].insert(2, dict(type='Resize', scale=(96, 96)))
    cfg.test_dataloader.dataset = split
    for look in (choose, explain, by_testing(folder)):
        with pytest.raises(ValueError, match='is 96x96 in the test split, its image 64x64: put Lo'):
            look(cfg, folder / 'small.pth')


@pytest.mark.parametrize('views', [False, True])
def test_images_without_labels_are_predicted(folder, cfg, tmp_path, capsys, views):
    image = next((folder / 'data').rglob('*.png'))
    load = [dict(type='LoadAnnotations')]
    split = own_split(folder, tmp_path, image, load)
    del split['data_prefix']['seg_map_path']
    cfg.test_dataloader.dataset = split
    if views:
        flips = [dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)]
        steps = [flips, load, [dict(type='PackSegInputs')]]
        cfg.tta_pipeline = [split['pipeline'][0], dict(type='TestTimeAug', transforms=steps)]
        cfg.tta_model = dict(type='SegTTAModel')
    cfg.test_evaluator = [dict(type='LogitAdjustmentSweep'), dict(type='IoUMetric')]
    out, files = tmp_path / 'maps', (folder / 'small.pth', tmp_path / 'test')
    assert runs.test(cfg, *files, out=out, tta=views) == {}
    assert [p.name for p in out.iterdir()] == ['0.png']
    assert np.asarray(Image.open(out / '0.png')).shape == (64, 64)
    with pytest.raises(ValueError, match='has no labels .*, which --per-class needs'):
        runs.test(cfg, *files, out=out, per_class='rows.json')
    with pytest.raises(ValueError, match='has no labels .* --out FOLDER predicts images without'):
        runs.test(cfg, *files)
    cfg.test_evaluator = dict(type='DepthMetric')
    with pytest.raises(
        ValueError, match='DepthMetric is not known to do without: put .*LongTailIoUMetric'
    ):
        runs.test(cfg, *files, out=out)


def test_the_cityscapes_metric_writes_maps_of_images_without_labels(
    folder, cfg, tmp_path, monkeypatch
):
    # In the place of cityscapesscripts: no class is renumbered.
    monkeypatch.setattr(citys_metric, 'CSEval', object())
    monkeypatch.setattr(citys_metric, 'CSLabels', SimpleNamespace(trainId2label={}))
    image = next((folder / 'data').rglob('*.png'))
    split = own_split(folder, tmp_path, image, [])
    del split['data_prefix']['seg_map_path']
    cfg.test_dataloader.dataset = split
    # Not the first: DepthMetric cannot do without labels.
    cfg.test_evaluator = [
        dict(type='DepthMetric'),
        dict(type='CityscapesMetric', output_dir='unused'),
    ]
    out = tmp_path / 'maps'
    assert runs.test(cfg, folder / 'small.pth', tmp_path / 'test', out=out) == {}
    assert [p.name for p in out.iterdir()] == ['0.png']


def test_a_prediction_that_is_no_class_is_not_counted_as_another():
    metric = ConfusionMetric(3)
    wrong = {name: {'data': torch.tensor([[[3, 1]]])} for name in ('pred_sem_seg', 'gt_sem_seg')}
    with pytest.raises(ValueError, match='predicts class 3, the data set has 3 classes'):
        metric.process({}, [wrong])
