import math

import pytest
import torch

from mmseg_ltmi.core.posterior import fit_temperature
from mmseg_ltmi.core.posterior.fitted_temperature import TEMPERATURES


def drawn(noise, seed=0, num_classes=3, images=6, per_image=5, dims=16):
    """Unit vectors about a direction of each class, and what is of one image alike."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_classes).repeat_interleave(images * per_image)
    image = torch.arange(images).repeat_interleave(per_image).repeat(num_classes)
    center = torch.randn(num_classes, dims, generator=generator)[labels]
    of_image = torch.randn(num_classes * images, dims, generator=generator)
    of_image = of_image[labels * images + image]
    own = torch.randn(len(labels), dims, generator=generator)
    samples = torch.nn.functional.normalize(center + noise * (of_image + own / 10), dim=1)
    return samples, labels, image


def naive(samples, labels, image, num_classes, temperature):
    """The definition, pixel by pixel, in float64."""
    samples = samples.double()
    means = []
    for c in range(num_classes):
        of_class = []
        for q in (labels == c).nonzero()[:, 0][:32]:
            density = []
            for k in range(num_classes):
                keys = samples[(labels == k) & (image != image[q])]
                density.append((keys @ samples[q] / temperature).exp().mean())
            density = torch.stack(density)
            if not density[c].isnan():
                of_class.append((density[c] / density[~density.isnan()].sum()).log())
        if of_class:
            means.append(torch.stack(of_class).mean())
    return float(torch.stack(means).mean())


@pytest.mark.parametrize('noise', [0.3, 1.0, 2.0])
def test_it_is_the_most_likely_one_by_the_definition(noise):
    found = fit_temperature(*drawn(noise), num_classes=3)
    best = max(TEMPERATURES, key=lambda t: naive(*drawn(noise), 3, t))
    assert found == best


def test_what_is_alike_in_an_image_does_not_make_it_too_sharp():
    samples, labels, image = drawn(2.0)
    every_pixel_an_image = torch.arange(len(labels))
    assert fit_temperature(samples, labels, every_pixel_an_image, 3) < fit_temperature(
        samples, labels, image, 3
    )


def test_classes_of_one_image_and_without_pixels_have_no_say():
    samples, labels, image = drawn(1.0)
    found = fit_temperature(samples, labels, image, 3)
    lonely = torch.tensor([3, 3]), torch.tensor([0, 0])
    more = torch.cat([samples, samples[:2]])
    at = naive(more, torch.cat([labels, lonely[0]]), torch.cat([image, lonely[1]]), 5, found)
    assert math.isfinite(at)
    best = max(
        TEMPERATURES,
        key=lambda t: naive(
            more, torch.cat([labels, lonely[0]]), torch.cat([image, lonely[1]]), 5, t
        ),
    )
    assert (
        fit_temperature(more, torch.cat([labels, lonely[0]]), torch.cat([image, lonely[1]]), 5)
        == best
    )
    alone = fit_temperature(samples[:2], torch.tensor([0, 1]), torch.tensor([0, 0]), 2)
    assert alone == TEMPERATURES[7]
