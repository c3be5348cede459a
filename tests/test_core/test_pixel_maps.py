"""Labels at the size of a feature map."""

import torch

from mmseg_ltmi.core.pixel_maps import resize_labels


def test_a_cell_has_the_label_of_its_first_pixel():
    labels = torch.arange(12).view(1, 1, 12).expand(1, 4, 12)
    assert resize_labels(labels, (2, 4))[0].tolist() == [[0, 3, 6, 9]] * 2
    assert torch.equal(resize_labels(labels, (4, 12)), labels)
