"""A class prior is of the train set's classes and labels, or training does not begin."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import inference_model, init_model
from mmseg.datasets import ADE20KDataset, CityscapesDataset
from mmseg.registry import DATASETS, METRICS, MODELS
from own_data import NAMES, TURNED, config, data, write_data
from tiny import COUNTS, batch, segmentor

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core import LogitAdjustedLoss
from mmseg_ltmi.core.priors import PriorBuffer
from mmseg_ltmi.datasets import CamVidDataset, NYUv2Dataset
from mmseg_ltmi.engine.hooks.run_checks import check_prior


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The working directory, with a data set."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*args, **options):
    runner = Runner.from_cfg(config(*args, **options))
    runner.train()
    return runner.model


def prior(classes=None, **more):
    return ClassPrior(COUNTS, classes, source='own', **more).to_dict()


def make_stock(cfg):
    cfg.model.decode_head.type = 'FCNHead'
    cfg.model.decode_head.pop('contrast')


def make_contrast_alone(cfg):
    head = cfg.model.decode_head
    head.contrast.class_prior = head.loss_decode.class_prior
    head.loss_decode = dict(type='CrossEntropyLoss')


def make_cascade(cfg):
    """Whose heads are in a list, where mmengine initializes nothing."""
    head = cfg.model.decode_head
    cfg.model.update(type='CascadeEncoderDecoder', num_stages=1, decode_head=[head])


def make_repeated(cfg):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)


@pytest.mark.parametrize(
    'change',
    [lambda cfg: None, make_stock, make_contrast_alone, make_cascade, make_repeated],
    ids=['LTMI head', 'stock head', 'contrast alone', 'cascade', 'repeated data set'],
)
def test_another_order_of_classes_is_refused(root, change):
    cfg = config(prior(TURNED))
    change(cfg)
    message = (
        r"class_prior \(own\) and the train set have their classes in another order: 1 is 'pole' "
        "and 'Traffic_Light', 2 is 'traffic light' and 'pole'; .*mmseg-ltmi count"
    )
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()
    assert not list(root.glob('work/*.pth'))


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="other classes: 0 is 'a' and 'road', .* and 'bike'; "):
        train(prior(list('abcd')))
    with pytest.raises(ValueError, match='class_prior has 3 classes .* num_classes=4'):
        train(prior()['pixel_counts'][:3])


@pytest.mark.parametrize(
    'classes, dataset',
    [
        (['ROAD', 'traffic light', 'Pole ', 'bi-ke'], data()),
        (None, data()),
        (TURNED, data(metainfo=None)),
    ],
    ids=['spelled otherwise', 'a prior without names', 'a data set without names'],
)
def test_the_same_or_unknown_classes_are_trained(classes, dataset, caplog):
    train(prior(classes), dataset)
    assert 'other names' not in caplog.text


def test_classes_that_are_numbers(root):
    """As YAML and JSON files may name them."""
    numbered = data(metainfo=dict(classes=[0, 1, 2, 3]))
    with pytest.raises(ValueError, match="other classes: 0 is 'road' and '0', .*mmseg-ltmi count"):
        train(prior(NAMES), numbered)
    train(None, numbered, hook=True)
    counted = ClassPrior.load('work/class_prior.json')
    assert counted.classes == ('0', '1', '2', '3')
    train('work/class_prior.json', numbered)


def test_a_class_of_another_name_is_said(caplog):
    train(prior(['road', 'traffic light', 'post', 'bike']))
    assert "other names for some classes (2 is 'post' and 'pole')" in caplog.text


@pytest.mark.parametrize('given', [COUNTS, prior(NAMES), 'online', None])
@pytest.mark.parametrize('classes', [NAMES[:3], [*NAMES, 'hare']])
def test_another_number_of_classes_is_refused(root, given, classes):
    number = len(classes)
    cfg = config(given, data(metainfo=dict(classes=classes)))
    message = (
        f'LTMIFCNHead has num_classes=4, but the train set names {number} classes: give the decode '
        rf'heads num_classes={number} and .* metainfo=dict\(classes=\[...\]\) with 4 names'
    )
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()
    assert not list(root.glob('work/*.pth'))


def test_a_prior_of_another_head_is_of_the_classes_too():
    cfg = config(COUNTS)
    cfg.model.auxiliary_head = copy.deepcopy(cfg.model.decode_head)
    loss = dict(type='LTMILoss', class_prior=ClassPrior([3, 1], ['a', 'b'], source='two').to_dict())
    cfg.model.auxiliary_head.update(type='FCNHead', num_classes=2, loss_decode=loss)
    del cfg.model.auxiliary_head['contrast']
    message = r'LTMILoss.class_prior \(two\) has 2 classes, the train set has 4: count the prior'
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()


PUBLISHED = dict(
    ade20k=ADE20KDataset, cityscapes=CityscapesDataset, camvid=CamVidDataset, nyuv2=NYUv2Dataset
)


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_priors_are_of_the_data_sets(name):
    published = ClassPrior.load(name)
    own = dict(data_prefix=dict(img_path='img', seg_map_path='ann'), img_suffix='.jpg')
    own |= dict(seg_map_suffix='.png', pipeline=[])
    buffer = PriorBuffer(name, published.num_classes, 'prior')
    dataset = PUBLISHED[name](**own)
    assert len(dataset) == 4 and published.classes == tuple(dataset.metainfo['classes'])
    check_prior(buffer, dataset)
    zero = not dataset.reduce_zero_label
    with pytest.raises(ValueError, match=f'={not zero}, the train set .*={zero}: the same labels'):
        check_prior(buffer, PUBLISHED[name](**own, reduce_zero_label=zero))
    with pytest.raises(ValueError, match='prior .* has .* classes, the train set has 3: count the'):
        check_prior(buffer, PUBLISHED[name](**own, metainfo=dict(classes=published.classes[2:5])))


@pytest.mark.parametrize(
    'labels, message',
    [
        (dict(reduce_zero_label=True), 'reduce_zero_label=True, .* reduce_zero_label=False'),
        (dict(label_map={0: 1, 1: 0}), r'label_map=\{0: 1, 1: 0\}, .* label_map=\{\}: the same'),
    ],
)
def test_labels_that_were_read_otherwise_are_refused(labels, message):
    with pytest.raises(ValueError, match=f'own.*{message}.*mmseg-ltmi count'):
        train(prior(NAMES, labels=labels))
    train(prior(NAMES, labels={**dict.fromkeys(labels), 'ignore_index': 255}))


def test_a_count_states_how_labels_were_read(root):
    counted = ClassPrior.from_dataset(DATASETS.build(data()))
    assert counted.labels == dict(reduce_zero_label=False, label_map={}, ignore_index=255)
    counted.save(root / 'prior.json')
    assert ClassPrior.load(root / 'prior.json') == counted
    train('prior.json')
    files = sorted((root / 'ann').iterdir())
    turned = ClassPrior.from_label_files(files, 4, NAMES, label_map={0: 1, 1: 0, 2: 2})
    assert turned.labels['label_map'] == {0: 1, 1: 0}
    turned.save(root / 'turned.json')
    assert ClassPrior.load(root / 'turned.json') == turned
    with pytest.raises(ValueError, match='label_map={0: 1, 1: 0}'):
        train('turned.json')


@pytest.mark.parametrize(
    'labels',
    [7, [1], dict(reduced=True), dict(reduce_zero_label='no'), dict(label_map={'a': 1}),
     dict(label_map=[3]), dict(label_map={1: 0.5}), dict(ignore_index='255')],
)  # fmt: skip
def test_a_file_that_states_it_wrongly(labels):
    with pytest.raises(ValueError, match='labels must be a dict .*reduce_zero_label'):
        ClassPrior(COUNTS, labels=labels)


def test_parts_of_a_data_set_have_the_same_classes():
    parts = [DATASETS.build(data(metainfo=dict(classes=names))) for names in (NAMES, TURNED)]
    with pytest.raises(ValueError, match=r'part 0 \(BaseSegDataset\) and part 1 .*another order'):
        ClassPrior.from_dataset(torch.utils.data.ConcatDataset(parts))
    parts[1] = DATASETS.build(data(metainfo=dict(classes=NAMES), ignore_index=254))
    counted = ClassPrior.from_dataset(torch.utils.data.ConcatDataset(parts))
    assert counted.labels == dict(reduce_zero_label=False, label_map={})  # where they agree


# The prior file is gone


def test_a_model_is_used_without_its_prior_file(root, caplog):
    ClassPrior(COUNTS).save('prior.json')
    cfg = config('prior.json')
    trained = Runner.from_cfg(cfg)
    trained.train()
    (root / 'prior.json').unlink()
    model = init_model(cfg, 'work/iter_1.pth', device='cpu')
    assert "LogitAdjustedLoss.class_prior: no class prior 'prior.json'" in caplog.text
    head, want = model.decode_head, trained.model.decode_head
    torch.testing.assert_close(head.score_reader.natural_shift, ClassPrior(COUNTS).log_probs())
    found = inference_model(model, 'img/0.jpg').seg_logits.data
    cfg.model.decode_head.loss_decode.class_prior = COUNTS
    again = init_model(cfg, 'work/iter_1.pth', device='cpu')
    torch.testing.assert_close(found, inference_model(again, 'img/0.jpg').seg_logits.data)
    assert want.contrast.queue.room.equal(head.contrast.queue.room)

    # A metric that names it takes the model's; without a model that predicts it cannot.
    metric = METRICS.build(
        dict(type='LongTailIoUMetric', class_prior='prior.json', per_class_file=None)
    )
    metric.dataset_meta = dict(classes=tuple(NAMES))
    inference_model(model, 'img/0.jpg')
    label = torch.arange(4)[None, None]
    metric.process({}, [dict(pred_sem_seg=dict(data=label), gt_sem_seg=dict(data=label))])
    assert metric.evaluate(1)['mIoU_tail'] == 100


def test_training_needs_the_prior_file(root):
    place = str(root / 'gone.json')
    message = f"LogitAdjustedLoss.class_prior: no class prior 'gone.json'.* {place}.*ltmi count"
    for change in (lambda cfg: None, make_stock):
        cfg = config('gone.json', hook=True)
        change(cfg)
        with pytest.raises(FileNotFoundError, match=message):
            Runner.from_cfg(cfg).train()
    assert not (root / 'work/class_prior.json').exists()  # nobody counted one in its place
    with pytest.raises(FileNotFoundError, match='LTMIFCNHead.class_prior: no class prior'):
        train(COUNTS, head=dict(class_prior='gone.json'))
    with pytest.raises(FileNotFoundError, match=message):
        LogitAdjustedLoss('gone.json')(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2).long())


@pytest.mark.parametrize('kind', ['LTMI', 'stock'])
def test_scores_that_nothing_explains_are_not_read(kind):
    cfg = config('gone.json', type='LTMIEncoderDecoder')
    if kind == 'stock':
        make_stock(cfg)
    with pytest.raises(FileNotFoundError, match="no class prior 'gone.json'"):
        inference_model(init_model(cfg, device='cpu'), 'img/0.jpg')


# Where a file is looked up


def test_a_prior_beside_the_config_is_found(root):
    config('prior.json').dump(root / 'configs/own.py')
    cfg = Config.fromfile(root / 'configs/own.py')
    both = f'tried {root}/configs/prior.json; .* in the working directory, {root}, '
    with pytest.raises(FileNotFoundError, match=both):
        Runner.from_cfg(cfg).train()
    ClassPrior(COUNTS[::-1]).save(root / 'configs/prior.json')
    turned = ClassPrior(COUNTS[::-1]).log_probs()
    runner = Runner.from_cfg(cfg)
    torch.testing.assert_close(runner.model.decode_head.log_prior, turned)
    model = init_model('configs/own.py', device='cpu')
    torch.testing.assert_close(model.decode_head.log_prior, turned)
    # The working directory comes first.
    ClassPrior(COUNTS).save(root / 'prior.json')
    model = init_model('configs/own.py', device='cpu')
    torch.testing.assert_close(model.decode_head.log_prior, ClassPrior(COUNTS).log_probs())
    with pytest.raises(FileNotFoundError, match=rf'tried {root}/configs/x.json;'):
        ClassPrior.load(root / 'configs/x.json')


def test_a_base_has_the_prior_beside_it(root):
    (root / 'base').mkdir()
    (root / 'base/base.py').write_text("loss = dict(class_prior='prior.json')\nother = dict()")
    (root / 'configs/own.py').write_text("_base_ = '../base/base.py'\nother = dict(a=1)")
    ClassPrior(COUNTS[::-1]).save(root / 'configs/prior.json')
    # Nothing lies beside the base.
    found = Config.fromfile(root / 'configs/own.py').loss.class_prior
    assert found == str(root / 'configs/prior.json')
    ClassPrior(COUNTS).save(root / 'base/prior.json')
    found = Config.fromfile(root / 'configs/own.py').loss.class_prior
    assert found == str(root / 'base/prior.json')
    # As in a config of pure Python.
    (root / 'base/lazy.py').write_text("loss = dict(class_prior='prior.json')")
    lazy = (
        'from mmengine.config import read_base\n'
        'with read_base():\n    from ..base.lazy import *\n'
        'other = dict(a=1)\n'
    )
    (root / 'configs/lazy.py').write_text(lazy)
    found = Config.fromfile(root / 'configs/lazy.py').loss.class_prior
    assert found == str(root / 'base/prior.json')


def test_each_config_has_the_prior_beside_it(root):
    """Also in a metric, in a list of heads, and whatever was read since."""
    for folder, counts in (('one', COUNTS), ('other', COUNTS[::-1])):
        cfg = config('prior.json')
        make_cascade(cfg)
        cfg.val_evaluator = [dict(type='LongTailIoUMetric', class_prior='prior.json')]
        cfg.tested = dict(test_prior='prior.json')
        cfg.published = [dict(class_prior=name) for name in ('camvid', 'online', None)]
        (root / folder).mkdir()
        cfg.dump(root / folder / 'own.py')
        ClassPrior(counts).save(root / folder / 'prior.json')
    one, other = (Config.fromfile(root / folder / 'own.py') for folder in ('one', 'other'))
    for cfg, counts in ((one, COUNTS), (other, COUNTS[::-1])):
        head = MODELS.build(copy.deepcopy(cfg).model).decode_head[0]
        torch.testing.assert_close(head.log_prior, ClassPrior(counts).log_probs())
        file = cfg.val_evaluator[0].class_prior
        assert cfg.tested.test_prior == file
        assert ClassPrior.load(file).pixel_counts.tolist() == counts
        assert [part.class_prior for part in cfg.published] == ['camvid', 'online', None]


# What is not a class


@pytest.mark.parametrize(
    'of_data, of_head, refused',
    [(255, 0, True), (0, 255, True), (0, 0, False), (254, 255, False)],
)
@pytest.mark.parametrize('stock', [False, True])
def test_counting_and_training_ignore_the_same_label(of_data, of_head, refused, stock):
    cfg = config(None, data(ignore_index=of_data), dict(ignore_index=of_head), hook=True)
    cfg.model.data_preprocessor.seg_pad_val = of_head
    if stock:
        make_stock(cfg)
    if not refused:
        Runner.from_cfg(cfg).train()
        return
    numbers = f'ignore_index={of_data}, training has ignore_index={of_head}'
    with pytest.raises(ValueError, match=f'was counted with {numbers}.*decode heads the same'):
        Runner.from_cfg(cfg).train()


def test_padding_that_is_no_class_is_blamed():
    pad = dict(ignore_index=254)
    with pytest.raises(ValueError, match='padded with 255.*seg_pad_val=254') as error:
        train(COUNTS, head=pad)
    assert 'images' not in str(error.value)
    cfg = config(COUNTS, head=pad)
    make_stock(cfg)
    with pytest.raises(ValueError, match=r'labels \[255\].*seg_pad_val of the data_preprocessor'):
        Runner.from_cfg(cfg).train()
    cfg = config(COUNTS, head=pad)
    cfg.model.data_preprocessor.seg_pad_val = 254
    Runner.from_cfg(cfg).train()


def test_padding_that_is_a_class_is_said(root):
    cfg = config(COUNTS)
    cfg.log_level = 'WARNING'
    cfg.model.data_preprocessor.seg_pad_val = 2
    Runner.from_cfg(cfg).train()
    shown = ''.join(file.read_text() for file in root.glob('work/*/*.log'))
    assert shown.count('padding is trained as class 2') == 1
    assert 'seg_pad_val=255' in shown


def test_a_label_of_a_file_is_blamed_on_the_file():
    model = MODELS.build(segmentor(head=dict(contrast=None)))
    inputs, samples = batch()
    for sample in samples:
        sample.set_metainfo(dict(padding_size=(0, 8, 0, 8)))
        sample.gt_sem_seg.data[..., -8:, :] = sample.gt_sem_seg.data[..., -8:] = 255
    samples[1].set_metainfo(dict(img_path='y.png'))
    samples[1].gt_sem_seg.data[0, 9, 9] = 7
    with pytest.raises(ValueError, match=r"labels \[7\] .*images: \['y.png'\]"):
        model.loss(inputs, samples)


# Fine-tuning


@pytest.mark.parametrize('how', ['load_from', 'resume', 'resume with EMAHook'])
@pytest.mark.parametrize('classes, kept', [(NAMES, True), (TURNED, False)])
def test_nothing_stays_of_classes_that_have_moved(how, classes, kept):
    def run(names, **options):
        cfg = config('online', data(indices=[0], metainfo=dict(classes=names)))
        cfg.model.decode_head.loss_decode.num_classes = len(names)
        cfg.custom_hooks = [dict(type='EMAHook')] if how.endswith('EMAHook') else []
        cfg.update(options)
        cfg.train_cfg.max_iters = 1 + cfg.get('resume', False)
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner

    counted = run(NAMES).model.decode_head.loss_decode.online_counts
    resume = how != 'load_from'
    runner = run(classes, load_from='work/iter_1.pth', resume=resume, work_dir='tuned')
    head = runner.model.decode_head
    # Both train on two copies of one image, so that a step counts the same. Without --resume the
    # checkpoint's counts may be those of another train set.
    went_on = kept and resume
    torch.testing.assert_close(head.loss_decode.online_counts, counted * (1 + went_on))


@pytest.mark.parametrize('classes, steps', [(NAMES, 2), (TURNED, 1)])
def test_an_average_of_other_classes_begins_anew(classes, steps):
    """Only the names of the classes tell it: the shapes fit."""

    def run(names, **options):
        teacher = dict(type='DistilledEncoderDecoder', teacher=dict(type='EMA'), alpha=1.0)
        cfg = config('online', data(metainfo=dict(classes=names)), **teacher)
        cfg.update(options)
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner.model.teacher.steps

    assert run(NAMES) == 1
    assert run(classes, load_from='work/iter_1.pth', work_dir='tuned') == steps
