"""BLV, the region term, region keys and Lovász in LTMI heads, by config and in a run."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmseg.models.losses import LovaszLoss
from mmseg.registry import MODELS
from tiny import CONTRAST, COUNTS, batch, demo_run, segmentor, total

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.apis.convert import to_stock
from mmseg_ltmi.core import BLVLoss, LTMILoss, RegionRebalance
from mmseg_ltmi.core.posterior import losses_of, natural_shift_of_head

PRIOR = dict(pixel_counts=COUNTS, image_counts=[20, 20, 10, 5], num_images=20)
ADJUSTED = dict(type='LTMILoss', class_prior=PRIOR)
LOVASZ = [
    dict(type='LovaszLoss', reduction='none', loss_weight=0.5),
    dict(type='LovaszLoss', per_image=True, loss_weight=0.5),
]


def step(model, seed=0):
    """The losses of a training step, of which every parameter gets a finite gradient."""
    losses = model.train().loss(*batch(seed))
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    return losses


@pytest.mark.parametrize('lovasz', LOVASZ)
def test_lovasz_beside_ltmi_loss(lovasz):
    model = MODELS.build(segmentor(head=dict(loss_decode=[ADJUSTED, lovasz], contrast=None)))
    losses = step(model)
    assert {'decode.loss_ltmi', 'decode.loss_lovasz'} <= set(losses)
    assert 0 < losses['decode.loss_lovasz'] <= 0.5  # a loss of overlap, times its weight
    # LTMILoss speaks for the head, whichever comes first.
    shift = LTMILoss(PRIOR).natural_shift()
    torch.testing.assert_close(natural_shift_of_head(model.decode_head, 4), shift)
    other = MODELS.build(segmentor(head=dict(loss_decode=[lovasz, ADJUSTED], contrast=None)))
    torch.testing.assert_close(natural_shift_of_head(other.decode_head, 4), shift)
    # Lovász sees the raw scores.
    alone = LovaszLoss(**{k: v for k, v in lovasz.items() if k != 'type'})
    scores, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8))
    parts = {loss.loss_name: loss for loss in model.decode_head.loss_decode}
    torch.testing.assert_close(parts['loss_lovasz'](scores, labels), alone(scores, labels))


@pytest.mark.parametrize('zero_mean', [False, True])
@pytest.mark.parametrize('ltmi', [False, True])
def test_blv_is_read_by_the_mean_of_its_noise(zero_mean, ltmi):
    loss = dict(type='BLVLoss', class_prior=COUNTS, zero_mean=zero_mean)
    more = dict(contrast=None) if ltmi else {}
    # Under a segmentor that reads, a stock head is read alike.
    config = segmentor(ltmi=ltmi, head=dict(loss_decode=loss, **more), type='LTMIEncoderDecoder')
    model = MODELS.build(ConfigDict(config))
    assert 'decode.loss_blv' in step(model)
    shift = BLVLoss(COUNTS, zero_mean=zero_mean).natural_shift()
    assert bool(shift.any()) != zero_mean
    inputs, _ = batch()
    with torch.no_grad():
        raw = model.eval()(inputs, mode='tensor')
        read = model.predict(inputs)[0].seg_logits.data
    raw = torch.nn.functional.interpolate(raw, read.shape[1:], mode='bilinear')[0]
    wanted = shift[:, None, None].expand_as(read)
    torch.testing.assert_close(read - raw, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize('centers', ['learned', 'simplex'])
def test_region_term_of_a_head(centers):
    torch.manual_seed(0)
    head = dict(loss_decode=ADJUSTED, region=dict(centers=centers))
    contrast = {k: v for k, v in CONTRAST.items() if k != 'class_prior'}
    model = MODELS.build(ConfigDict(segmentor(head=dict(head, contrast=contrast))))
    region = model.decode_head.region
    assert type(region) is RegionRebalance
    losses = step(model)
    assert losses['decode.loss_region'] > 0 and 'decode.acc_region' in losses
    assert [key for key in losses if 'region' in key and 'loss' in key] == ['decode.loss_region']
    torch.testing.assert_close(
        natural_shift_of_head(model.decode_head, 4), LTMILoss(PRIOR).natural_shift()
    )
    if centers == 'learned':  # it takes the prior of the head's loss, by images
        torch.testing.assert_close(
            region.presence.log_prior, ClassPrior([20, 20, 10, 5]).log_probs()
        )
    # Stock checkpoints go in and out.
    plain = MODELS.build(segmentor(ltmi=False))
    plain.load_state_dict(to_stock(model.state_dict()), strict=True)
    model.load_state_dict(plain.state_dict(), strict=True)
    # Where no pixel has a class the term is zero, with a graph.
    inputs, samples = batch()
    for sample in samples:
        sample.gt_sem_seg.data.fill_(255)
    losses = model.loss(inputs, samples)
    total(losses).backward()
    assert losses['decode.loss_region'] == 0 and losses['decode.loss_region'].requires_grad


def test_an_initialization_of_the_head_leaves_the_simplex():
    model = MODELS.build(segmentor(head=dict(loss_decode=ADJUSTED, region=dict(centers='simplex'))))
    before = model.decode_head.region.centers.clone()
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            torch.nn.init.normal_(module.weight)
    model.init_weights()
    assert torch.equal(model.decode_head.region.centers, before)


def test_one_prior_and_bad_input():
    with pytest.raises(ValueError, match=r'RegionRebalance\.class_prior'):
        MODELS.build(segmentor(head=dict(region=dict(class_prior=[1, 1, 1, 1]))))
    with pytest.raises(ValueError, match='name of the region term'):
        loss = dict(ADJUSTED, loss_name='loss_region')
        MODELS.build(segmentor(head=dict(loss_decode=loss, region=dict(), contrast=None)))
    # A region term alone counts an online prior, of pixels and of regions.
    stock = dict(type='CrossEntropyLoss')
    head = dict(loss_decode=stock, contrast=None, class_prior='online', region=dict())
    model = MODELS.build(segmentor(head=head))
    step(model)
    assert model.decode_head.region.presence.online_counts.tolist() == [2, 2, 2, 2]
    assert model.decode_head.log_prior.numel() == 4


@pytest.mark.parametrize(
    ('head', 'names'),
    [
        (dict(loss_decode=dict(type='BLVLoss', _delete_=True)), {'loss_blv'}),
        (dict(region=dict(), contrast=dict(region_keys=True)), {'loss_ltmi', 'loss_region'}),
        (
            dict(loss_decode=[dict(type='LTMILoss'), LOVASZ[0]], region=dict(centers='simplex')),
            {'loss_ltmi', 'loss_lovasz', 'loss_region'},
        ),
    ],
    ids=['blv', 'region', 'simplex'],
)
def test_run(tmp_path, head, names):
    cfg = demo_run(tmp_path / 'run', steps=2)
    cfg.merge_from_dict({'model.decode_head': head})
    runner = Runner.from_cfg(cfg)
    runner.train()
    found = runner.model.decode_head
    logged = {key.removeprefix('train/decode.') for key in runner.message_hub.log_scalars}
    assert {key for key in logged if 'loss_' in key} == {*names, 'loss_contrast'}
    assert found.contrast.region_keys == ('region_keys' in head.get('contrast', ()))
    assert all(parameter.isfinite().all() for parameter in found.parameters())
    torch.testing.assert_close(
        found.score_reader.natural_shift, losses_of(found)[0].natural_shift()
    )
