"""FeatureRecorder: which layer it finds, what it records, and that it leaves nothing behind."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmseg_ltmi.core import FeatureRecorder


class Network(nn.Module):
    """Has an early 1x1 convolution, and an auxiliary classifier before the last one."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 1))
        self.auxiliary = nn.Conv2d(6, 4, 1)
        self.classifier = nn.Conv2d(6, 4, 1)

    def forward(self, images):
        return self.classifier(self.backbone(images))


IMAGES = torch.randn(2, 3, 8, 10)


def test_last_convolution():
    network = Network()
    plain = network(IMAGES)
    keys = list(network.state_dict())
    recorder = FeatureRecorder(network)
    assert recorder.classifier is network.classifier and recorder.channels == 6
    logits = network(IMAGES)
    assert recorder.has_recorded and recorder.logits is logits and logits.equal(plain)
    assert recorder.features.equal(network.backbone(IMAGES))
    assert list(network.state_dict()) == keys


def test_named_layer_or_the_layer_itself():
    network = Network()
    for classifier in ('backbone.2', network.backbone[2]):
        with FeatureRecorder(network, classifier) as recorder:
            network(IMAGES)
            assert recorder.features.equal(network.backbone[:2](IMAGES))
            assert recorder.logits.equal(network.backbone(IMAGES))


def test_gradient_reaches_what_is_before_the_classifier():
    network = Network()
    recorder = FeatureRecorder(network)
    network(IMAGES)
    recorder.features.square().mean().backward()
    assert network.backbone[0].weight.grad.abs().sum() > 0
    assert network.classifier.weight.grad is None


def test_errors():
    network = Network()
    with pytest.raises(ValueError, match=r"no layer 'head': see named_modules\(\)"):
        FeatureRecorder(network, 'head')
    with pytest.raises(ValueError, match='is no layer of the network'):
        FeatureRecorder(network, nn.Conv2d(6, 4, 1))
    with pytest.raises(ValueError, match=r'no convolution: name the layer.*\(classifier=\)'):
        FeatureRecorder(nn.Linear(2, 2))
    wide = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3))
    with pytest.raises(ValueError, match=r"'1', is not 1x1: .*\(classifier='1', if"):
        FeatureRecorder(wide)
    assert FeatureRecorder(wide, '1').channels == 6
    recorder = FeatureRecorder(network, 'auxiliary')
    network(IMAGES)
    assert not recorder.has_recorded
    for name in ('features', 'logits'):
        with pytest.raises(RuntimeError, match='took no part in a forward pass'):
            getattr(recorder, name)


def test_it_lets_go():
    network = Network()
    with FeatureRecorder(network) as recorder:
        network(IMAGES)
        assert network.classifier._forward_hooks
        recorder.clear()
        assert not recorder.has_recorded
        network(IMAGES)
        assert recorder.has_recorded
    assert not network.classifier._forward_hooks and not recorder.has_recorded
    network(IMAGES)
    assert not recorder.has_recorded
    with pytest.raises(KeyError), FeatureRecorder(network):
        raise KeyError
    assert not network.classifier._forward_hooks


def test_only_the_last_pass_is_kept():
    network = Network()
    recorder = FeatureRecorder(network)
    network(IMAGES)
    first = recorder.features
    network(IMAGES[:1])
    assert recorder.features.shape == (1, 6, 8, 10) and recorder.features is not first
    assert len(network.classifier._forward_hooks) == 1
    tensors = [v for v in vars(recorder).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) == 2


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_the_network_is_without_the_recorder(copied):
    network = Network()
    recorder = FeatureRecorder(network)
    network(IMAGES)  # leaves tensors with a graph, which cannot be copied
    kept = recorder.features
    other = copied(network)
    assert other(IMAGES).equal(network(IMAGES))
    kept = recorder.features
    other(IMAGES)
    assert recorder.features is kept


def test_channels_of_a_linear_classifier_and_of_another_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(5, 3), nn.ReLU())
    assert FeatureRecorder(network, '1').channels == 5
    with pytest.raises(ValueError, match='a ReLU does not tell .*classifier='):
        FeatureRecorder(network, '2').channels  # noqa: B018
