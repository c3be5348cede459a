"""A user's own sampler, classifier and teacher, by name in a config."""

import pytest
import torch
from mmseg.registry import MODELS
from tiny import CONTRAST, batch, segmentor

from mmseg_ltmi.core.contrast import PixelContrast, UniformPixelSampler
from mmseg_ltmi.models.segmentors import EMATeacher


@MODELS.register_module(force=True)
class FirstPixels(UniformPixelSampler):
    """Draws nothing: the first pixels."""

    def forward(self, labels, class_log_prior, logits=None):
        sample = super().forward(labels, class_log_prior, logits)
        pixel = torch.arange(self.num_samples)
        return sample._replace(pixel=pixel, labels=labels.flatten()[pixel])


@MODELS.register_module(force=True)
class DoubledClassifier(torch.nn.Conv2d):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, features):
        return 2 * super().forward(features)


@MODELS.register_module(force=True)
class HalfwayTeacher(EMATeacher):
    def __init__(self, student):
        super().__init__(student, momentum=0.5)


@pytest.mark.parametrize('kind', ['FirstPixels', 'mmseg.FirstPixels', FirstPixels])
def test_own_sampler(kind):
    contrast = {**CONTRAST, 'sampler': dict(type=kind, num_samples=8)}
    model = MODELS.build(segmentor(head=dict(contrast=contrast)))
    assert type(model.decode_head.contrast.sampler) is FirstPixels
    model.loss(*batch())


def test_unknown_part():
    with pytest.raises(KeyError, match="contrast.queue is of type 'RingBuffer'"):
        MODELS.build(segmentor(head=dict(contrast={**CONTRAST, 'queue': dict(type='RingBuffer')})))


def test_parts_as_modules_in_plain_torch():
    sampler = FirstPixels(8)
    term = PixelContrast(8, 4, [4, 3, 2, 1], sampler=sampler, queue=dict(size=64))
    assert term.sampler is sampler
    losses = term(torch.randn(1, 8, 8, 8), torch.randint(0, 4, (1, 16, 16)))
    assert losses['loss_contrast'].isfinite()


def test_own_classifier_and_teacher():
    classifier = dict(type='DoubledClassifier')
    model = MODELS.build(
        segmentor(
            type='DistilledEncoderDecoder',
            teacher=dict(type='HalfwayTeacher'),
            head=dict(classifier=classifier),
        )
    )
    assert isinstance(model.decode_head.conv_seg, DoubledClassifier)
    assert model.teacher.momentum == 0.5
    model.train().loss(*batch())
