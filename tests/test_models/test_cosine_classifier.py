import pytest
import torch
from mmengine.runner import load_state_dict
from mmseg.registry import MODELS
from tiny import batch, segmentor, total

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.core.cosine_classifier import CosineClassifier

COSINE = dict(type='cosine', scale=30)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_scores_by_hand():
    classifier = CosineClassifier(2, 3, scale=10)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[2.0, 0], [0, 0.1], [-3, -4]]).view(3, 2, 1, 1))
    scores = classifier(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten()
    torch.testing.assert_close(scores, torch.tensor([6.0, 8.0, -10.0]))
    assert (classifier(torch.zeros(1, 2, 1, 1)) == 0).all()
    half = torch.full((1, 2, 1, 1), 300.0, dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        assert classifier(half).float().flatten()[0].item() == pytest.approx(10 / 2**0.5, rel=0.01)
    assert list(classifier.state_dict()) == ['weight']


@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
def test_stock_checkpoint_gives_the_directions(load):
    stock = MODELS.build(segmentor(ltmi=False))
    torch.nn.init.normal_(stock.decode_head.conv_seg.weight)
    torch.nn.init.normal_(stock.decode_head.conv_seg.bias)
    state = stock.state_dict()
    ours = MODELS.build(segmentor(head=dict(classifier=COSINE)))
    load(ours, state, strict=True)
    assert 'decode_head.conv_seg.bias' in state  # the caller keeps what it had
    assert torch.equal(ours.decode_head.conv_seg.weight, stock.decode_head.conv_seg.weight)
    feature = torch.randn(1, 8, 1, 1)
    weight = stock.decode_head.conv_seg.weight[:, :, 0, 0]
    expected = 30 * torch.cosine_similarity(weight, feature[:, :, 0, 0], dim=1)
    torch.testing.assert_close(ours.decode_head.conv_seg(feature).flatten(), expected)
    # And a checkpoint of its own.
    MODELS.build(segmentor(head=dict(classifier=COSINE))).load_state_dict(ours.state_dict())


def test_trains_and_is_initialized():
    model = MODELS.build(segmentor(head=dict(classifier=COSINE)))
    model.init_weights()
    assert 0.005 < model.decode_head.conv_seg.weight.std() < 0.02
    total(model.loss(*batch())).backward()
    assert model.decode_head.conv_seg.weight.grad.isfinite().all()
    assert model.decode_head.conv_seg.scale == 30


def test_a_half_precision_model_classifies():
    model = MODELS.build(segmentor(head=dict(classifier=COSINE))).bfloat16().eval()
    with torch.no_grad():
        assert model(batch()[0].bfloat16(), mode='tensor').isfinite().all()


def test_autocast_leaves_it_in_float32():
    classifier, features = CosineClassifier(8, 3), torch.randn(1, 8, 4, 4)
    with torch.autocast('cpu', torch.bfloat16):
        found = classifier(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, classifier(features), rtol=0, atol=0)


def test_bad_input():
    with pytest.raises(ValueError, match='scale of a cosine classifier.* -1'):
        MODELS.build(segmentor(head=dict(classifier={**COSINE, 'scale': -1})))
    for wrong in (dict(type='cosin'), dict(scale=3), dict(type='linear', scale=3)):
        with pytest.raises(ValueError, match="use dict\\(type='linear'\\)"):
            MODELS.build(segmentor(head=dict(classifier=wrong)))
    MODELS.build(segmentor(head=dict(classifier=dict(type='linear'))))
