"""A head, its losses, its contrast and its metrics have one class prior."""

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmseg.registry import METRICS, MODELS
from tiny import COUNTS, batch, demo_run, segmentor
from torch import distributed

import mmseg_ltmi.core.distributed as core_distributed
from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core import LogitAdjustedLoss

LOG_PRIOR = ClassPrior(COUNTS).log_probs()
OPEN = dict(type='LTMILoss')
NAMED = dict(type='LTMILoss', class_prior=COUNTS)
ONLINE = dict(type='LTMILoss', class_prior='online')
OTHER = [1, 1, 1, 97]


def head(loss=OPEN, contrast=None, **more):
    contrast = dict(queue=dict(size=64), sampler=dict(num_samples=48), **(contrast or {}))
    config = segmentor(head=dict(loss_decode=loss, contrast=contrast, **more))
    return MODELS.build(config).decode_head


@pytest.mark.parametrize(
    'options',
    [
        dict(loss=NAMED),
        dict(contrast=dict(class_prior=COUNTS)),
        dict(class_prior=COUNTS),
        dict(loss=[NAMED, dict(type='LogitAdjustedLoss', loss_name='loss_other')]),
    ],
    ids=['loss', 'contrast', 'head', 'one of two losses'],
)
def test_whoever_names_none_takes_that_of_the_others(options):
    found = head(**options)
    losses = found.loss_decode if isinstance(options.get('loss'), list) else [found.loss_decode]
    for module in (*losses, found.contrast, found):
        torch.testing.assert_close(module.log_prior, LOG_PRIOR)
    torch.testing.assert_close(found.score_reader.log_prior, LOG_PRIOR)
    assert found.contrast.queue.room[0] > found.contrast.queue.room[3]


def test_a_prior_that_comes_later_reaches_all():
    model = MODELS.build(segmentor(head=dict(loss_decode=OPEN, contrast=dict())))
    assert model.decode_head.contrast.needs_class_prior
    model.decode_head.loss_decode.set_class_prior(COUNTS)
    model.loss(*batch())
    torch.testing.assert_close(model.decode_head.contrast.log_prior, LOG_PRIOR)


@pytest.mark.parametrize(
    'options, names',
    [
        (dict(loss=NAMED, contrast=dict(class_prior=OTHER)), 'LTMILoss.*PixelContrast'),
        (dict(loss=NAMED, class_prior=OTHER), 'LTMIFCNHead.*LTMILoss'),
        (dict(loss=ONLINE, contrast=dict(class_prior=OTHER)), r'LTMILoss.*online.*PixelContrast'),
    ],
)
def test_two_that_differ_are_an_error_that_names_both(options, names):
    with pytest.raises(ValueError, match=f'(?s){names}.*different priors of one head'):
        head(**options)


def test_an_online_prior_is_counted_once_a_step_with_one_reduction(monkeypatch):
    calls = []
    monkeypatch.setattr(core_distributed, 'rank_and_world_size', lambda: (0, 2))
    monkeypatch.setattr(distributed, 'all_reduce', calls.append)
    monkeypatch.setattr(distributed, 'all_gather', lambda into, x: [t.copy_(x) for t in into])
    loss = [ONLINE, dict(type='LogitAdjustedLoss', class_prior='online', loss_name='loss_b')]
    for losses in (ONLINE, loss):
        calls.clear()
        model = MODELS.build(segmentor(head=dict(loss_decode=losses, contrast=dict())))
        inputs, samples = batch()
        model.loss(inputs, samples)
        assert len(calls) == 1
        labels = torch.stack([sample.gt_sem_seg.data for sample in samples])
        counts = labels[labels < 4].bincount(minlength=4)
        torch.testing.assert_close(model.decode_head.log_prior.exp(), counts / counts.sum())
        assert model.decode_head.contrast.prior is model.decode_head._priors()[1]


def predicted(model):
    """Nothing but that the head has predicted, in a run of its own."""
    MessageHub.get_current_instance().runtime_info.pop('class_prior', None)
    if model is not None:
        meta = [dict(img_shape=(64, 64))] * 2
        model.eval().encode_decode(batch()[0], meta)


def sample():
    logits = torch.randn(4, 8, 8)
    data = dict(pred_sem_seg=logits.argmax(0)[None], gt_sem_seg=torch.arange(4).repeat(8, 2)[None])
    return {'seg_logits': {'data': logits}, **{k: {'data': v} for k, v in data.items()}}


def evaluate(config):
    metric = METRICS.build(config)
    metric.dataset_meta = {'classes': tuple('abcd')}
    metric.process({}, [sample()])
    return metric.evaluate(1)


def test_metrics_take_the_prior_of_the_model():
    ltmi = MODELS.build(segmentor(head=dict(loss_decode=NAMED, contrast=dict())))
    sweep = dict(type='LogitAdjustmentSweep')
    groups = dict(type='LongTailIoUMetric', per_class_file=None)
    predicted(ltmi)
    torch.manual_seed(0)
    found = evaluate(sweep)
    torch.manual_seed(0)
    assert evaluate({**sweep, 'class_prior': COUNTS}) == found
    assert 'mIoU_tail' in evaluate(groups)
    for metric, prior in ((sweep, [79, 16, 4, 1]), (groups, OTHER)):
        with pytest.raises(ValueError, match="(?s)metric's class_prior .* is another one than"):
            evaluate({**metric, 'class_prior': prior})
    evaluate({**groups, 'class_prior': [79, 16, 4, 1]})  # the same groups
    predicted(None)
    with pytest.raises(ValueError, match='knows no class prior'):
        evaluate(sweep)
    evaluate({**sweep, 'class_prior': OTHER})


def test_the_prior_of_a_checkpoint_is_enough_for_metrics():
    trained = MODELS.build(segmentor(head=dict(loss_decode=NAMED, contrast=dict())))
    tested = MODELS.build(segmentor(head=dict(loss_decode=dict(type='LTMILoss'), contrast=dict())))
    tested.load_state_dict(trained.state_dict(), strict=True)
    predicted(tested)
    assert 'sweep/tau1/mIoU_tail' in evaluate(dict(type='LogitAdjustmentSweep'))


def test_priors_are_compared_once_and_not_in_every_step(monkeypatch):
    model = MODELS.build(segmentor(head=dict(loss_decode=NAMED, contrast=dict())))

    def never(*_):
        raise AssertionError('a comparison waits for the device')

    monkeypatch.setattr('mmseg_ltmi.core.priors.prior_buffer.is_same_log_prior', never)
    model.loss(*batch())


def test_nobody_counts_an_online_prior():
    loss = dict(type='CrossEntropyLoss')
    with pytest.raises(ValueError, match='online, but the head has neither'):
        MODELS.build(segmentor(head=dict(loss_decode=loss, contrast=None, class_prior='online')))


def test_a_loss_of_ones_own_is_called_as_it_is():
    @MODELS.register_module(force=True)
    class Doubled(LogitAdjustedLoss):
        def forward(self, *args, **kwargs):
            return 2 * super().forward(*args, **kwargs)

    values = []
    for kind in ('LogitAdjustedLoss', 'Doubled'):
        torch.manual_seed(0)
        loss = dict(type=kind, class_prior=COUNTS)
        model = MODELS.build(segmentor(head=dict(loss_decode=loss, contrast=None)))
        values.append(model.loss(*batch())['decode.loss_ltmi'])
    torch.testing.assert_close(values[1], 2 * values[0])


def test_a_rare_class_of_the_checkpoint_keeps_its_prior_in_metrics():
    counts = [100000, 50, 20, 0]
    model = MODELS.build(
        segmentor(head=dict(loss_decode=dict(type='LTMILoss', class_prior=counts), contrast=dict()))
    )
    tested = MODELS.build(segmentor(head=dict(loss_decode=OPEN, contrast=dict())))
    tested.load_state_dict(model.state_dict(), strict=True)
    predicted(tested)
    evaluate(dict(type='LogitAdjustmentSweep', class_prior=counts))  # it is the same one


def test_an_online_prior_lets_a_metric_name_another():
    model = MODELS.build(segmentor(head=dict(loss_decode=ONLINE, contrast=dict())))
    model.loss(*batch())
    predicted(model)
    evaluate(dict(type='LogitAdjustmentSweep', class_prior=OTHER))
    evaluate(dict(type='LongTailIoUMetric', class_prior=OTHER, per_class_file=None))


@pytest.mark.parametrize('contrast', [{}, None], ids=['contrast', 'no contrast'])
def test_a_prior_that_is_set_on_the_head_reaches_all_before_a_step(contrast):
    """As ClassPriorHook does: EMAHook copies the buffers before the first step."""
    config = segmentor(head=dict(loss_decode=OPEN, contrast=contrast))
    found = MODELS.build(config).decode_head
    assert found.needs_class_prior
    found.set_class_prior(COUNTS)
    assert not found.needs_class_prior
    for name, buffer in found.named_buffers():
        if name.endswith('log_prior'):
            torch.testing.assert_close(buffer, LOG_PRIOR)
    shift = found.loss_decode.natural_shift()
    torch.testing.assert_close(found.score_reader.natural_shift, shift)


def test_hook_and_moving_average_go_together(tmp_path):
    cfg = demo_run(tmp_path, 1)
    cfg.model.decode_head.loss_decode = OPEN
    cfg.custom_hooks = [dict(type='EMAHook'), dict(type='ClassPriorHook')]
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.decode_head.log_prior.numel() == 13


def test_an_online_prior_and_a_moving_average_go_together(tmp_path):
    cfg = demo_run(tmp_path, 2)
    cfg.model.decode_head.loss_decode = ONLINE
    cfg.custom_hooks = [dict(type='EMAHook')]
    runner = Runner.from_cfg(cfg)
    runner.train()
    head = runner.model.decode_head
    assert head.loss_decode.online_counts.sum() > 0
    torch.testing.assert_close(head.score_reader.log_prior, head.log_prior)


def test_nothing_is_read_by_an_online_prior_that_has_seen_nothing():
    for prior in (dict(loss=ONLINE), dict(class_prior='online')):
        reader = head(**prior).score_reader
        assert reader.log_prior.isnan().all() and not reader.has_shift


@pytest.mark.parametrize('ltmi', [True, False])
@pytest.mark.parametrize('thresh', [None, 0.7])
def test_hard_pixels_leave_an_online_prior_alone(ltmi, thresh):
    online = dict(type='LTMILoss', class_prior=dict(type='online', decay=0.5))
    sampler = dict(type='OHEMPixelSampler', thresh=thresh, min_kept=100)
    config = dict(loss_decode=online, sampler=sampler, **(dict(contrast=None) if ltmi else {}))
    model = MODELS.build(segmentor(ltmi=ltmi, head=config)).train()
    counts = []
    for seed in (0, 1):
        inputs, samples = batch(seed)
        model.loss(inputs, samples)
        labels = torch.stack([sample.gt_sem_seg.data for sample in samples])
        counts.append(labels[labels < 4].bincount(minlength=4).double())
    found = model.decode_head.loss_decode.online_counts
    torch.testing.assert_close(found, counts[0] / 2 + counts[1])


def test_a_loss_that_states_no_shift_ends_the_old_reading():
    model = MODELS.build(segmentor(head=dict(loss_decode=NAMED, contrast=None)))
    state = model.state_dict()
    dice = dict(type='DiceLoss', loss_name='loss_dice')
    other = MODELS.build(segmentor(head=dict(loss_decode=dice, contrast=None)))
    other.load_state_dict(state, strict=False)
    reader = other.decode_head.score_reader
    torch.testing.assert_close(reader.natural_shift, model.decode_head.score_reader.natural_shift)
    other.train().loss(*batch())
    assert reader.natural_shift.isnan().all() and not reader.has_shift
    scores = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(reader(scores), scores)


def test_a_head_that_calls_its_loss_for_each_branch_counts_once_a_step():
    torch.manual_seed(0)
    found = MODELS.build(
        dict(
            type='LTMIDAHead', in_channels=8, channels=8, pam_channels=4, num_classes=4,
            norm_cfg=dict(type='BN'), contrast=dict(queue=dict(size=64)),
            loss_decode=dict(ONLINE, class_prior=dict(type='online', decay=0.5)),
        )
    )  # fmt: skip
    sums = []
    for step in range(2):
        samples = batch(step)[1]
        found.loss([torch.randn(2, 8, 8, 8)], samples, None)
        known = torch.stack([sample.gt_sem_seg.data for sample in samples]) < 4
        sums.append(known.sum().item())
    assert found.loss_decode.online_counts.sum() == 0.5 * sums[0] + sums[1]
