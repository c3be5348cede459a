"""What trains, what is loaded and what is evaluated mean the same classes by the same labels."""

from functools import partial

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner
from mmseg.registry import DATA_SAMPLERS, MODELS
from own_data import NAMES, TURNED, config, data, write_data
from PIL import Image
from tiny import COUNTS, segmentor
from torch.distributed.elastic.utils.data import ElasticDistributedSampler
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis import choose, runs
from mmseg_ltmi.apis.explain import explain
from mmseg_ltmi.core import LogitAdjustedLoss
from mmseg_ltmi.core.posterior import OperatingPoint
from mmseg_ltmi.core.priors import PriorBuffer
from mmseg_ltmi.engine.hooks.reading_checks import check_views, raw_decision_warning
from mmseg_ltmi.engine.hooks.run_checks import sampler_warning


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The working directory, with a data set."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluated(split='val', dataset=None, metric='LongTailIoUMetric', cfg=None, **options):
    """A config that evaluates a data set."""
    cfg = config(COUNTS) if cfg is None else cfg
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg[f'{split}_dataloader'] = dict(dataset=dataset or data(), **loader)
    cfg[f'{split}_cfg'] = dict(type='ValLoop' if split == 'val' else 'TestLoop')
    cfg[f'{split}_evaluator'] = [dict(type=metric, iou_metrics=['mIoU'], **options)]
    if split == 'val':
        cfg.train_cfg.val_interval = 1
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=8)
    return cfg


def turned(**more):
    return data(metainfo=dict(classes=TURNED), **more)


ORDER = "have their classes in another order: 1 is 'Traffic_Light' and 'pole'"


@pytest.mark.parametrize('metric', ['LongTailIoUMetric', 'IoUMetric'])
def test_the_val_set_has_the_classes_of_the_train_set(root, metric):
    cfg = evaluated(dataset=turned(), metric=metric)
    with pytest.raises(ValueError, match=f'the train set and the val set {ORDER}.*metainfo=dict'):
        Runner.from_cfg(cfg).train()
    assert not list(root.glob('work/*.pth'))  # before training, not at the first validation
    parts = dict(type='ConcatDataset', datasets=[data(), turned()], ignore_keys=['classes'])
    with pytest.raises(ValueError, match=rf'part 1 of the val set \(BaseSegDataset\) {ORDER}'):
        Runner.from_cfg(evaluated(dataset=parts, metric=metric)).train()
    Runner.from_cfg(evaluated(metric=metric)).train()


def test_the_val_set_reads_labels_as_the_train_set_does():
    cfg = evaluated(dataset=data(reduce_zero_label=True))
    message = 'train set has reduce_zero_label=False, the val set has reduce_zero_label=True.*'
    with pytest.raises(ValueError, match=f'{message}compare=False'):
        Runner.from_cfg(cfg).train()
    cfg.default_hooks.runtime_info = dict(type='mmseg.RuntimeInfoHook', compare=False)
    Runner.from_cfg(cfg).train()


@pytest.mark.parametrize('how', ['test', 'val'])
def test_an_evaluated_set_has_the_classes_of_the_checkpoint(how):
    """By mmengine's Runner alone, as in mmsegmentation's own tools."""
    Runner.from_cfg(config(COUNTS)).train()
    cfg = evaluated(how, turned())
    cfg.load_from = 'work/iter_1.pth'
    with pytest.raises(ValueError, match=f'the checkpoint and the {how} set {ORDER}'):
        getattr(Runner.from_cfg(cfg), how)()
    cfg = evaluated(how, data(reduce_zero_label=True), cfg=cfg)
    cfg.log_level = 'WARNING'
    getattr(Runner.from_cfg(cfg), how)()  # on files that may be numbered otherwise


def test_a_prior_of_the_config_has_the_classes_of_the_evaluated_set():
    """A stock checkpoint is read by it."""
    named = ClassPrior(COUNTS, TURNED, source='own').to_dict()
    model = MODELS.build(segmentor(ltmi=False))
    torch.save({'state_dict': model.state_dict()}, 'stock.pth')
    cfg = evaluated('test', cfg=config(named))
    for look in (partial(runs.test, work_dir='tested'), explain, partial(choose, select='test')):
        with pytest.raises(ValueError, match='another order: 1 is .pole. and .Traffic_Light.'):
            look(cfg, 'stock.pth')


def test_the_prior_of_a_metric_is_compared_before_training(root):
    named = ClassPrior(COUNTS, TURNED, source='own').to_dict()
    cfg = evaluated(class_prior=named)
    with pytest.raises(ValueError, match=r"the metric's class_prior \(own\) and .*another order"):
        Runner.from_cfg(cfg).train()
    assert not list(root.glob('work/*.pth'))
    cfg = evaluated(class_prior='prior_typo.json')
    Runner.from_cfg(cfg).train()  # the metric takes the head's
    cfg.model.decode_head = segmentor(ltmi=False)['decode_head']
    with pytest.raises(FileNotFoundError, match='prior_typo.json'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize('is_counted', [False, True])
def test_another_prior_of_a_metric_is_refused_before_training(root, is_counted):
    named = ClassPrior(COUNTS[::-1], NAMES, source='own')
    cfg = evaluated(class_prior=named.to_dict())
    if is_counted:
        cfg.model.decode_head.loss_decode.class_prior = None
        cfg.custom_hooks = [dict(type='ClassPriorHook')]
    with pytest.raises(ValueError, match=r"the metric's class_prior \(own\) is another one than"):
        Runner.from_cfg(cfg).train()
    assert not list(root.glob('work/*.pth'))
    cfg.model.decode_head.test_prior = named
    Runner.from_cfg(cfg).train()  # the head then predicts by that one, too


def test_a_run_without_this_package_is_left_alone():
    cfg = evaluated(dataset=turned(), metric='IoUMetric')
    head = cfg.model.decode_head
    head.type = 'FCNHead'
    head.pop('contrast')
    head.loss_decode = dict(type='CrossEntropyLoss')
    Runner.from_cfg(cfg).train()


@pytest.mark.parametrize(
    'of_data, of_head, of_metric, blamed',
    [
        (255, 0, 255, 'LTMIFCNHead has ignore_index=0, LongTailIoUMetric has ignore_index=255'),
        (0, 255, 255, 'the val set has ignore_index=0, LongTailIoUMetric has ignore_index=255'),
        (255, 255, 3, 'LTMIFCNHead has ignore_index=255, LongTailIoUMetric has ignore_index=3'),
        (0, 0, 0, None),
        (255, 0, 0, None),
        (254, 255, 255, None),
    ],
)
def test_metrics_judge_the_classes_that_are_trained(of_data, of_head, of_metric, blamed):
    counts = [0 if c == of_head else n for c, n in enumerate(COUNTS)]
    cfg = config(counts, head=dict(ignore_index=of_head))
    cfg.model.data_preprocessor.seg_pad_val = of_head
    dataset = data(ignore_index=of_data)
    cfg = evaluated(dataset=dataset, cfg=cfg, ignore_index=of_metric)
    if blamed is None:
        Runner.from_cfg(cfg).train()
        return
    with pytest.raises(ValueError, match=f'{blamed}, and one of them is a class'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize('second, refused', [(turned(), True), (data(), False)])
def test_each_part_of_the_train_set_has_the_classes_of_the_prior(second, refused):
    parts = dict(type='ConcatDataset', datasets=[data(), second], ignore_keys=['classes'])
    counted = ClassPrior(COUNTS, NAMES, source='own').to_dict()
    runner = Runner.from_cfg(config(counted, parts))
    if not refused:
        runner.train()
        return
    message = r'\(own\) and part 1 of the train set \(BaseSegDataset\) have .* another order'
    with pytest.raises(ValueError, match=message):
        runner.train()


@pytest.mark.parametrize('prior', [COUNTS, 'online'])
def test_the_parts_of_the_train_set_have_the_same_classes(prior):
    """Also where no prior names any."""
    parts = dict(type='ConcatDataset', datasets=[data(), turned()], ignore_keys=['classes'])
    message = r'part 0 of the train set \(BaseSegDataset\) and part 1 .* in another order'
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(config(prior, parts)).train()


@pytest.mark.parametrize('of_data, is_said', [(2, True), (0, False), (255, False)])
def test_a_class_that_the_train_set_ignores_is_trained(root, of_data, is_said):
    cfg = config([0, *COUNTS[1:]], data(ignore_index=of_data), dict(ignore_index=0))
    cfg.model.data_preprocessor.seg_pad_val = 0
    cfg.log_level = 'WARNING'
    Runner.from_cfg(cfg).train()
    log = ''.join(file.read_text() for file in root.glob('work/*/*.log'))
    assert ('class 2, which the train set has as its ignore_index, is trained' in log) == is_said


def test_what_looks_at_a_model_judges_the_classes_that_are_trained():
    Runner.from_cfg(config(COUNTS)).train()
    cfg = evaluated('test', data(ignore_index=0))
    for look in (explain, partial(choose, select='test')):
        with pytest.raises(ValueError, match='the data set has ignore_index=0, .* is a class'):
            look(cfg, 'work/iter_1.pth')


def test_scores_that_hold_an_unknown_prior(root):
    """A stock model keeps none of what ClassPriorHook has counted."""
    cfg = config(None, hook=True)
    cfg.model.decode_head.type = 'FCNHead'
    cfg.model.decode_head.pop('contrast')
    Runner.from_cfg(cfg).train()
    cfg = evaluated('test', cfg=cfg)
    cfg.update(log_level='WARNING', experiment_name='unknown')
    runs.test(cfg, 'work/iter_1.pth', 'tested')
    said = next(root.glob('tested/*/*.log')).read_text()
    assert said.count('in the work dir of the training): the scores are read as they are') == 1
    look = partial(choose, cfg, 'work/iter_1.pth', 'test', class_prior='work/class_prior.json')
    with pytest.raises(ValueError, match='iter_1.pth: the loss has class_prior=None, and'):
        look()
    cfg.model.decode_head.loss_decode.class_prior = 'work/class_prior.json'
    look()


def test_the_log_says_which_prior_is_used(root):
    cfg = config(ClassPrior(COUNTS, NAMES, source='my own file').to_dict())
    cfg.log_level = 'INFO'
    Runner.from_cfg(cfg).train()
    log = next(root.glob('work/*/*.log')).read_text()
    line = 'class prior: my own file, 4 classes, the rarest is bike with 1.0000 % of the pixels'
    assert log.count(line) == 1


def test_a_class_that_the_prior_counts_is_trained(caplog):
    prior = ClassPrior(COUNTS, NAMES, source='own')
    loss, image = LogitAdjustedLoss(prior), (torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 2).long())
    LogitAdjustedLoss([0, *COUNTS[1:]])(*image, ignore_index=0)
    loss(*image, ignore_index=255)
    assert not caplog.text
    for _ in range(3):
        loss(*image, ignore_index=0)
    message = '(own) has 80 for class 0 (road), which training ignores: make it 0 there, or count'
    assert caplog.text.count(message) == 1


def test_the_usual_ignore_index_is_no_class_of_many(root):
    message = '300 classes and ignore_index=255, .* ignore_index=65535'
    loss = LogitAdjustedLoss([1] * 300)
    image = torch.zeros(1, 300, 2, 2), torch.full((1, 2, 2), 255)
    with pytest.raises(ValueError, match=message):
        loss(*image, ignore_index=255)
    assert loss(*image, ignore_index=65535) == pytest.approx(np.log(300))
    with pytest.raises(ValueError, match=message):
        ClassPrior.from_label_files(sorted((root / 'ann').iterdir()), 300)
    names = [str(c) for c in range(300)]
    cfg = config(None, data(metainfo=dict(classes=names)), dict(num_classes=300), hook=True)
    cfg.model.decode_head.contrast.queue.size = 2400
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()


def test_labels_that_8_bits_cannot_hold_are_not_counted(root):
    labels = np.zeros((24, 24), np.uint16)
    labels[0] = 65535  # becomes 255, which is no class either way
    Image.fromarray(labels).save(root / 'ann/0.png')
    cfg = config(None, hook=True)
    Runner.from_cfg(cfg).train()
    labels[1] = 258
    Image.fromarray(labels).save(root / 'ann/0.png')
    cfg = config(None, hook=True)
    cfg.work_dir = 'again'
    with pytest.raises(ValueError, match='0.png: it has the label 258, .* keeps 8 bits, 2: number'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('lazy', [False, True])
def test_training_on_an_empty_split(split, lazy):
    nothing = data(img_suffix='.none', serialize_data=not lazy)
    cfg = evaluated(dataset=nothing) if split == 'val' else config(COUNTS, nothing)
    message = f'the {split} split has no images .img, ann.: .*img_suffix'
    with pytest.raises(ValueError, match=message):
        runs.train(cfg)


WEIGHTED = dict(type='CrossEntropyLoss', class_weight=[1.0, 2, 3, 4])
LTMI = dict(type='LTMILoss', class_prior=COUNTS)


@pytest.mark.parametrize(
    'how, kind, head, loss, said',
    [
        ('train', 'EncoderDecoder', 'FCNHead', LTMI, 1),
        ('test', 'EncoderDecoder', 'FCNHead', LTMI, 1),
        ('test', 'EncoderDecoder', 'FCNHead', WEIGHTED, 1),
        ('test', 'EncoderDecoder', 'FCNHead', dict(type='CrossEntropyLoss'), 0),
        ('test', 'LTMIEncoderDecoder', 'FCNHead', LTMI, 0),
        ('train', 'EncoderDecoder', 'LTMIFCNHead', LTMI, 0),
    ],
)
def test_raw_scores_that_a_loss_has_shifted_are_said(root, how, kind, head, loss, said):
    """Of a stock head in mmsegmentation's segmentor."""
    cfg = evaluated('test')
    cfg.model.type, cfg.model.decode_head.type = kind, head
    cfg.model.decode_head.loss_decode = loss
    if head == 'FCNHead':
        cfg.model.decode_head.pop('contrast')
    cfg.log_level = 'WARNING'
    getattr(Runner.from_cfg(cfg), how)()
    (log,) = root.glob('work/*/*.log')
    assert log.read_text().count('decides by the raw scores, in validation too') == said


class FirstTwice(torch.utils.data.Sampler):
    def __init__(self, dataset, **options):
        self.number = len(dataset)

    def __len__(self):
        return self.number + 1

    def __iter__(self):
        while True:
            yield from [0, 0, *range(1, self.number)]


DATA_SAMPLERS.register_module(module=FirstTwice, force=True)


@pytest.mark.parametrize('prior, said', [(COUNTS, 1), ('online', 0)])
def test_a_sampler_that_no_count_follows_is_said(root, prior, said):
    cfg = config(prior)
    cfg.train_dataloader.sampler = dict(type='FirstTwice')
    cfg.log_level = 'WARNING'
    Runner.from_cfg(cfg).train()
    (log,) = root.glob('work/*/*.log')
    assert log.read_text().count('FirstTwice draws the images in its own way') == said


class FirstAlone(InfiniteSampler):
    def __iter__(self):
        while True:
            yield 0


class FirstInBatch(BatchSampler):
    def __iter__(self):
        while True:
            yield [0, 0]


@pytest.mark.parametrize(
    'sampler, batches, said',
    [
        (FirstTwice, BatchSampler, 'FirstTwice draws the images'),
        (FirstAlone, BatchSampler, 'FirstAlone draws the images'),
        (RandomSampler, FirstInBatch, 'FirstInBatch draws the images'),
        (FirstAlone, FirstInBatch, 'FirstInBatch of FirstAlone draws the images'),
        (RandomSampler, BatchSampler, ''),
        (InfiniteSampler, BatchSampler, ''),
        (DefaultSampler, BatchSampler, ''),
        (partial(ElasticDistributedSampler, num_replicas=1, rank=0), BatchSampler, ''),
    ],
)
def test_a_sampler_of_a_batch_sampler_is_said_too(sampler, batches, said):
    """Also one that derives from an even one; of one that a library derives nothing is said."""
    prior, images = PriorBuffer(COUNTS, None, 'prior'), range(4)
    loader = DataLoader(images, batch_sampler=batches(sampler(images), 2, True))
    text = sampler_warning(prior, loader)
    assert text.startswith(said) and bool(text) == bool(said)


def test_a_segmentor_of_ones_own_is_left_alone():
    class Own(torch.nn.Module):
        decode_head = None

    assert raw_decision_warning(Own()) == '' == raw_decision_warning(torch.nn.Sequential(Own()))


def test_views_by_argmax_are_refused_beside_the_iou_rule():
    model = MODELS.build(segmentor(type='LTMIEncoderDecoder')).eval()
    views = MODELS.build(dict(type='SegTTAModel', module=model))
    check_views(views, [])
    log_prior = tuple(model.decode_head.log_prior.tolist())
    model.reader.set_point(
        OperatingPoint('iou', tuple('abcd'), log_prior, 0.0, (0.5,) * 4, (1,) * 4)
    )
    with pytest.raises(ValueError, match='the IoU rule of the model would not decide: SegTTAModel'):
        check_views(views, [])
    check_views(MODELS.build(dict(type='LTMISegTTAModel', module=model)), [])
