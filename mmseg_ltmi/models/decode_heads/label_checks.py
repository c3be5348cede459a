"""Where labels come from that a decode head cannot use: label files, or the padding of batches."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from mmseg_ltmi.core.losses import LabelOutOfRangeError


def check_padding(
    labels: Tensor, data_samples: list[Any], num_classes: int, ignore_index: int
) -> bool:
    """Look at what the data preprocessor padded the labels with; whether it padded any.

    A warning says where it is a class, which some mean.

    Args:
        labels: int64 (B, H, W).
        data_samples: of the batch.
        num_classes: C.
        ignore_index: label that belongs to no class.

    Raises:
        LabelOutOfRangeError: neither a class nor ``ignore_index``.
    """
    if labels.dim() != 3:
        return False  # colour masks, which the loss refuses
    padded = next((i for i, sample in enumerate(data_samples) if any(_padding(sample))), None)
    if padded is None:
        return False
    label = int(labels[padded, -1, -1])
    remedy = f'give model.data_preprocessor seg_pad_val={ignore_index}'
    if 0 <= label < num_classes and label != ignore_index:
        print_log(
            f'padding is trained as class {label}: if it is none, {remedy}',
            'current',
            logging.WARNING,
        )
    elif label != ignore_index:
        raise LabelOutOfRangeError(
            f'labels are padded with {label}, which is neither a class (0..{num_classes - 1}) nor '
            f'ignore_index={ignore_index}: {remedy}'
        )
    return True


def bad_images(
    labels: Tensor, data_samples: list[Any], num_classes: int, ignore_index: int
) -> list[str]:
    """The label files with a label that is neither a class nor ``ignore_index``.

    Arguments as for :func:`check_padding`; padding is in no file.
    """
    bad = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
    height, width = labels.shape[1:]
    names = []
    for i, sample in enumerate(data_samples):
        right, below = _padding(sample)
        if bad[i, : height - below, : width - right].any():
            meta = sample.metainfo
            names.append(meta.get('seg_map_path') or meta.get('img_path', f'no. {i}'))
    return names


def _padding(sample: Any) -> tuple[int, int]:
    # To the right and below.
    left_right_top_bottom = sample.metainfo.get('padding_size', (0, 0, 0, 0))
    return left_right_top_bottom[1], left_right_top_bottom[3]
