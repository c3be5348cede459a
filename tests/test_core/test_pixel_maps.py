"""Labels at the size of a feature map, and images as they are drawn."""

import torch

from mmseg_ltmi.core.pixel_maps import resize_labels, rgb_picture


def test_a_cell_has_the_label_of_its_first_pixel():
    labels = torch.arange(12).view(1, 1, 12).expand(1, 4, 12)
    assert resize_labels(labels, (2, 4))[0].tolist() == [[0, 3, 6, 9]] * 2
    assert torch.equal(resize_labels(labels, (4, 12)), labels)


def test_images_of_any_number_of_channels_are_drawn():
    image = torch.arange(4 * 6 * 3).view(3, 4, 6).byte()  # blue, green, red
    assert rgb_picture(image, (4, 6)).tolist() == image.flip(0).movedim(0, -1).tolist()
    assert (rgb_picture(image[:2], (4, 6)) == image[0, :, :, None].numpy()).all()
    assert (rgb_picture(torch.cat([image, image]), (4, 6)) == rgb_picture(image, (4, 6))).all()
    assert rgb_picture(image, (2, 3)).shape == (2, 3, 3)
