"""Runs whose train set is resampled: which prior they have, and which scores they read."""

import copy
import re

import pytest
import torch
from mmengine.runner import Runner
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import DATASETS, MODELS
from own_data import NAMES, PIPELINE, config, data, write_data
from tiny import COUNTS, batch, demo_run, segmentor

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis.count import count
from mmseg_ltmi.core.priors import PriorBuffer, count_as_trained
from mmseg_ltmi.core.priors.fingerprint import pipeline_digest
from mmseg_ltmi.engine.hooks.run_checks import reading_warning, resampling_warning
from mmseg_ltmi.prior_message import announced_prior


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The working directory, with a data set."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sampled(**options):
    return dict(type='RareClassDataset', dataset=data(), min_pixels=2, **options)


def pasted():
    steps = [dict(type='RareClassPaste', min_pixels=2), PIPELINE[2]]
    inside = data(pipeline=PIPELINE[:2])
    return dict(type='MultiImageMixDataset', dataset=inside, pipeline=steps)


def repeated():
    return dict(type='RepeatDataset', times=2, dataset=sampled())


def joined(times=3):
    return dict(
        type='ConcatDataset',
        datasets=[data(), dict(type='RepeatDataset', times=times, dataset=data())],
    )


def train(root, prior, dataset, head=None, hook=False):
    """What the log of a run warns of, and its runner."""
    cfg = config(prior, dataset, head, hook)
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    runner.train()
    logs = sorted(root.glob('work/*/*.log'), key=lambda log: log.stat().st_mtime_ns)
    return logs[-1].read_text(), runner


def raw():
    return ClassPrior.from_dataset(DATASETS.build(data())).to_dict()


BY = {
    sampled: 'RareClassDataset(temperature=0.01, ',
    pasted: 'RareClassPaste(prob=0.5, ',
    repeated: 'RareClassDataset(temperature=0.01, ',
    joined: 'ConcatDataset(times=1, 3)',
}


@pytest.mark.parametrize('make', [sampled, pasted], ids=lambda make: make.__name__)
def test_a_prior_of_the_raw_labels_is_said(root, make):
    log, _ = train(root, raw(), make())
    start = 'is of labels as they are, but the train set is resampled by '
    assert log.count(f'{start}{BY[make]}') == 1
    assert 'mmseg-ltmi count CONFIG --as-trained' in log
    assert log.count('give decode_head.test_prior') == 1


def test_nothing_is_said_where_both_priors_are_right(root):
    counted = count_as_trained(DATASETS.build(sampled()), 8).prior.to_dict()
    log, _ = train(root, counted, sampled(), dict(test_prior=raw()))
    assert 'resampled' not in log


def said(prior, dataset):
    return resampling_warning(PriorBuffer(prior, None, 'prior'), DATASETS.build(dataset))


@pytest.mark.parametrize('make', BY, ids=lambda make: make.__name__)
def test_priors_of_every_kind(root, make):
    assert f'but the train set is resampled by {BY[make]}' in said(raw(), make())
    assert 'prior ([80, 15, 4, 1]) is of labels as they are' in said(COUNTS, make())
    counted = count_as_trained(DATASETS.build(make()), 8).prior
    assert not said(counted, make())
    assert not said('online', make())
    assert 'but the train set is resampled by nothing: count it' in said(counted, data())


@pytest.mark.parametrize('dataset', [
    data(),
    dict(type='RepeatDataset', times=2, dataset=data()),
    dict(type='ConcatDataset', datasets=[data(), data()]),
    dict(type='MultiImageMixDataset', dataset=data(pipeline=PIPELINE[:2]), pipeline=PIPELINE[2:]),
])  # fmt: skip
def test_what_resamples_nothing(root, dataset):
    assert not said(raw(), dataset)


def test_both_numbers_are_said(root):
    prior = ClassPrior([700, 200, 100, 0.001], NAMES, source='own')
    share = DATASETS.build(sampled(temperature=1e-4)).draw.image_shares()[3]
    text = said(prior, sampled(temperature=1e-4))
    assert f'(bike has 0.000125 % of the pixels in the prior and about {100 * share:.3g} %' in text


def test_a_prior_that_was_counted_behind_another_draw_is_said(root):
    counted = count_as_trained(DATASETS.build(sampled()), 8).prior
    text = said(counted, sampled(temperature=1))
    assert 'is of RareClassDataset(temperature=0.01, ' in text
    assert 'the train set is resampled by RareClassDataset(temperature=1, ' in text


def test_a_prior_of_other_repeats_is_said_and_not_taken_again(root):
    counted = count_as_trained(DATASETS.build(joined(2)), 8).prior
    by = r'is of ConcatDataset\(times=1, 2\), but the train set is resampled by .*\(times=1, 9\)'
    assert re.search(by, said(counted, joined(9)))
    for times in (2, 9):
        cfg = config(None, joined(times))
        cfg.custom_hooks = [dict(type='ClassPriorHook', num_samples=6)]
        Runner.from_cfg(cfg).train()
        assert f'(times=1, {times})' in ClassPrior.load('work/class_prior.json').source


def test_another_pipeline_is_counted_again(root):
    """The same labels and sampling, and other crops."""
    sources = set()
    for size in (8, 16):
        cfg = config(None, sampled())
        crop = dict(type='RandomCrop', crop_size=(size, size))
        cfg.train_dataloader.dataset.dataset.pipeline = [*PIPELINE[:2], crop, PIPELINE[2]]
        cfg.custom_hooks = [dict(type='ClassPriorHook', num_samples=6)]
        Runner.from_cfg(cfg).train()
        prior = ClassPrior.load('work/class_prior.json')
        assert prior.pixel_counts.sum() + prior.num_ignored == 6 * size * size
        sources.add(prior.source)
        stat = (root / 'work/class_prior.json').stat().st_mtime_ns
        Runner.from_cfg(cfg).train()  # and not again without a change
        assert (root / 'work/class_prior.json').stat().st_mtime_ns == stat
    assert len(sources) == 2


def test_a_pipeline_is_told_by_its_settings(root):
    """In every process, and after it has run."""

    def made(ratio=0.75, degree=10):
        turn = dict(type='RandomRotate', prob=1.0, degree=degree)
        steps = [
            *PIPELINE[:2],
            dict(type='RandomResize', scale=(32, 32), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(16, 16), cat_max_ratio=ratio),
            dict(type='RandomApply', transforms=[turn]),
            PIPELINE[2],
        ]
        return DATASETS.build(data(pipeline=steps))

    dataset = made()
    before = pipeline_digest(dataset)
    for i in range(4):
        dataset[i]
    assert pipeline_digest(dataset) == pipeline_digest(made()) == before
    assert len({before, pipeline_digest(made(ratio=0.5)), pipeline_digest(made(degree=20))}) == 3


def test_the_hook_counts_behind_the_pipeline(root):
    hook = dict(type='ClassPriorHook', num_samples=12)
    cfg = config(None, sampled(temperature=1e-4))
    cfg.custom_hooks = [hook]
    runner = Runner.from_cfg(cfg)
    runner.train()
    prior = runner.model.decode_head.loss_decode.prior.class_prior
    assert prior == count_as_trained(runner.train_dataloader.dataset, 12).prior
    assert prior == ClassPrior.load('work/class_prior.json') and prior.num_images == 12
    (root / 'ann/0.png').write_bytes(b'')
    cfg = config(None, pasted())
    cfg.custom_hooks = [hook]
    with pytest.raises(ValueError, match=r'0\.png'):
        Runner.from_cfg(cfg).train()


def test_scores_are_read_for_the_images_of_the_test(root):
    """p_test is in proportion to p_train pi_test / pi_train."""
    pi_train, pi_test = [20, 20, 30, 30], COUNTS
    loss = dict(type='LTMILoss', class_prior=pi_train)
    head = dict(loss_decode=loss, contrast=None)
    both = []
    for test_prior in (None, pi_test):
        torch.manual_seed(0)
        model = MODELS.build(segmentor(head=dict(**head, test_prior=test_prior))).eval()
        inputs, samples = batch()
        for sample in samples:
            sample.set_metainfo(dict(ori_shape=(64, 64)))
        head_of, features = model.decode_head, model.extract_feat(inputs)
        metas = [sample.metainfo for sample in samples]
        with torch.no_grad():
            scores = head_of.predict(features, metas, model.test_cfg)
        both.append(scores[0].log_softmax(0))
    trained, tested = both
    want = ClassPrior(pi_test).log_probs() - ClassPrior(pi_train).log_probs()
    want = (trained + want[:, None, None]).log_softmax(0)
    torch.testing.assert_close(tested, want)
    assert announced_prior(4).pixel_counts.tolist() == COUNTS

    # In training, in the checkpoint, and balanced by tau_test.
    head_of.loss(features, samples, model.train_cfg)
    reader = head_of.score_reader
    want = ClassPrior(pi_test).log_probs()
    torch.testing.assert_close(reader.log_prior, want)
    # LTMILoss states log pi_train up to a constant; the rest is log pi_test - log pi_train.
    torch.testing.assert_close(reader.natural_shift.log_softmax(0), want.log_softmax(0))
    head_of.tau_test = 1.0
    torch.testing.assert_close(reader.shift().softmax(0), torch.full((4,), 0.25))
    bare = MODELS.build(segmentor(head=head))
    bare.load_state_dict(model.state_dict())
    torch.testing.assert_close(bare.decode_head.score_reader.natural_shift, reader.natural_shift)


def test_scores_without_a_stated_shift_are_brought_to_the_test_prior(root):
    pi_train = [20, 20, 30, 30]
    loss = dict(type='SoftmaxFocalLoss')
    head = dict(loss_decode=loss, contrast=None, class_prior=pi_train, test_prior=COUNTS)
    model = MODELS.build(segmentor(head=head))
    want = ClassPrior(COUNTS).log_probs() - ClassPrior(pi_train).log_probs()
    for _ in range(2):
        model.loss(*batch())
        torch.testing.assert_close(model.decode_head.score_reader.natural_shift, want)


@pytest.mark.parametrize('given', [[20, 20, 30, 30], None, 'online'])
def test_a_stock_checkpoint_is_brought_to_the_test_prior(root, given):
    stock = MODELS.build(
        segmentor(ltmi=False, head=dict(loss_decode=dict(type='CrossEntropyLoss')))
    )
    loss = dict(type='LTMILoss', class_prior=given)
    head = dict(loss_decode=loss, contrast=None, test_prior=COUNTS)
    model = MODELS.build(segmentor(head=head))
    model.load_state_dict(stock.state_dict(), strict=False)
    shift = torch.zeros(4)  # of a prior that is not known, or has not counted yet
    if isinstance(given, list):
        shift = ClassPrior(COUNTS).log_probs() - ClassPrior(given).log_probs()
    torch.testing.assert_close(model.decode_head.score_reader.natural_shift, shift)
    missing = MODELS.build(segmentor(head={**head, 'test_prior': 'nowhere.json'}))
    with pytest.raises(FileNotFoundError, match='nowhere.json'):
        missing.load_state_dict(stock.state_dict(), strict=False)


def test_a_test_prior_needs_that_of_training(root):
    loss = dict(type='CrossEntropyLoss')
    head = dict(loss_decode=loss, contrast=None, test_prior=COUNTS)
    model = MODELS.build(segmentor(head=head))
    with pytest.raises(ValueError, match='LTMIFCNHead has test_prior, but not the prior of train'):
        model.loss(*batch())
    head['class_prior'] = 'missing.json'
    with pytest.raises(FileNotFoundError, match='missing.json'):
        MODELS.build(segmentor(head=head)).loss(*batch())


def test_a_stock_head_and_a_head_that_does_not_predict(root):
    """The reading is that of the head that predicts."""
    sampled_set, own = DATASETS.build(sampled()), dict(test_prior=raw())
    stock = MODELS.build(segmentor(ltmi=False))
    text = reading_warning(stock.decode_head, sampled_set)
    assert 'make the head LTMIFCNHead and give decode_head.test_prior' in text

    class OwnHead(FCNHead):
        pass

    own_head = OwnHead(in_channels=8, channels=8, num_classes=4)
    assert 'used on others, choose a tau on such images' in reading_warning(own_head, sampled_set)
    cfg = config(count_as_trained(sampled_set, 8).prior.to_dict(), sampled(), own)
    cfg.model.auxiliary_head = copy.deepcopy(cfg.model.decode_head)
    del cfg.model.auxiliary_head['test_prior']
    cfg.log_level = 'WARNING'
    Runner.from_cfg(cfg).train()
    (log,) = root.glob('work/*/*.log')
    assert 'resampled' not in log.read_text()


def test_a_test_prior_that_cannot_be_meant(root):
    with pytest.raises(ValueError, match='LTMIFCNHead.test_prior is online, but training does'):
        MODELS.build(segmentor(head=dict(test_prior='online')))
    with pytest.raises(ValueError, match='LTMIFCNHead.test_prior has 2 classes'):
        MODELS.build(segmentor(head=dict(test_prior=[1, 2])))
    with pytest.raises(FileNotFoundError, match=r"LTMIFCNHead.test_prior: no class prior 'x.json'"):
        train(root, COUNTS, data(), dict(test_prior='x.json'))
    turned = ClassPrior(COUNTS, NAMES[::-1], source='own').to_dict()
    with pytest.raises(ValueError, match=r'LTMIFCNHead.test_prior \(own\) and the train set have'):
        train(root, COUNTS, data(), dict(test_prior=turned))


def test_the_demo_trains_on_both(tmp_path):
    """LongTailShapes with sampling around pasting, in worker processes."""
    cfg = demo_run(tmp_path / 'run', 2)
    own = cfg.train_dataloader.dataset
    *first, pack = own.pipeline
    plain = count(cfg, num_workers=0).prior
    own.pipeline = first
    cfg.train_dataloader.dataset = dict(
        type='RareClassDataset',
        min_pixels=8,
        dataset=dict(
            type='MultiImageMixDataset',
            dataset=own,
            pipeline=[dict(type='RareClassPaste', min_pixels=8), pack],
        ),
    )
    assert count(cfg, num_workers=0).prior == plain
    seen = count(cfg, num_workers=0, as_trained=60).prior
    shares, raw_shares = seen.probs(0), plain.probs(0)
    rare = [c for c in plain.groups().tail if raw_shares[c] > 0]
    assert shares[rare].sum() > 1.5 * raw_shares[rare].sum()
    cfg.custom_hooks = [dict(type='ClassPriorHook', num_samples=20)]
    cfg.model.decode_head.test_prior = plain.to_dict()
    runner = Runner.from_cfg(cfg)
    runner.train()
    head = runner.model.decode_head
    torch.testing.assert_close(head.score_reader.log_prior, plain.log_probs())
    assert head.log_prior.allclose(ClassPrior.load(tmp_path / 'run/class_prior.json').log_probs())
