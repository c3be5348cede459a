"""Which class and which image are drawn how often."""

import numpy as np
import pytest

from mmseg_ltmi.core.priors import RareClassDraw

# 100 pixels an image; class 3 has none, class 2 has few.
COUNTS = np.array([[90, 10, 0, 0], [100, 0, 0, 0], [60, 38, 2, 0], [70, 29, 1, 0]])


def test_the_probability_of_a_class():
    """Shares are 0.8, 0.1925, 0.0075 and 0."""
    draw = RareClassDraw(COUNTS, temperature=0.1, min_pixels=1)
    odds = np.exp([-8, -1.925, -0.075])
    np.testing.assert_allclose(draw.probs, [*(odds / odds.sum()), 0])
    np.testing.assert_allclose(draw.probs[:3], [0.000312, 0.135830, 0.863857], atol=1e-6)
    even = RareClassDraw(COUNTS, temperature=1e6)
    np.testing.assert_allclose(even.probs, [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-6)
    steep = RareClassDraw(COUNTS, temperature=1e-9)  # no overflow
    np.testing.assert_allclose(steep.probs, [0, 0, 1, 0])


def test_named_classes_alone_are_drawn():
    draw = RareClassDraw(COUNTS, 0.1, classes=[1, 3])
    assert draw.probs.tolist() == [0, 1, 0, 0]


def test_draws_are_as_frequent_as_they_should_be():
    draw = RareClassDraw(COUNTS, temperature=0.3, min_pixels=5)
    assert draw.needed.tolist() == [5, 5, 2, 0]  # no image has 5 pixels of class 2
    rng, number = np.random.default_rng(0), 4000
    found = np.zeros(COUNTS.shape[::-1])
    for _ in range(number):
        found[draw.draw(rng)] += 1
    holds = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    assert not found[~holds].any()
    expected = draw.probs[:3, None] * holds[:3] / holds[:3].sum(1, keepdims=True) * number
    apart = (found[:3] - expected)[holds[:3]] ** 2 / expected[holds[:3]]
    assert apart.sum() < 24  # chi-square of 7 degrees of freedom: p < 0.0012 is beyond


def test_shares_of_whole_images():
    draw = RareClassDraw(np.array([[8, 0], [6, 2]]), temperature=1e6, min_pixels=1)
    # Half of the draws are by class 0, of both images, half by class 1, of the second one.
    np.testing.assert_allclose(draw.image_shares(), [0.8125, 0.1875], atol=1e-6)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(temperature=0), 'temperature=0, .* above 0, such as 0.01'),
        (dict(temperature=float('nan')), 'temperature=nan'),
        (dict(min_pixels=0), 'min_pixels=0: '),
        (dict(classes=[4]), r'classes=\[4\]: give numbers from 0 to 3'),
        (dict(classes=[3]), r'no image has a pixel of the classes \[3\]'),
    ],
)
def test_what_cannot_be_drawn(options, message):
    with pytest.raises(ValueError, match=message):
        RareClassDraw(COUNTS, **options)
