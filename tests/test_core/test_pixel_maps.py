"""Labels and features of one size must be of the same place of the image."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mmseg_ltmi.core.pixel_maps import resize_features, resize_labels


def test_a_cell_has_the_label_of_its_centre():
    labels = torch.arange(12).view(1, 1, 12).expand(1, 4, 12)
    assert resize_labels(labels, (2, 4))[0].tolist() == [[1, 4, 7, 10]] * 2
    assert torch.equal(resize_labels(labels, (4, 12)), labels)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([3, 5, 7]))
def test_a_mirrored_image_has_mirrored_labels(height, width, stride):
    labels = torch.randint(0, 256, (2, height * stride, width * stride))
    mirrored = resize_labels(labels.flip(2), (height, width))
    assert torch.equal(mirrored, resize_labels(labels, (height, width)).flip(2))


@given(st.integers(1, 15), st.sampled_from([4, 8]))
def test_labels_lie_where_scores_do(edge, stride):
    """Scores that are right on the cells are right at full size, up to half a cell of an edge."""
    labels = (torch.arange(16 * stride) >= edge * stride).long().expand(1, stride, -1)
    small = resize_labels(labels, (1, 16))
    scores = torch.stack([1.0 - small, small], 1)
    decided = resize_features(scores, labels.shape[1:]).argmax(1)
    assert torch.equal(decided, labels)
