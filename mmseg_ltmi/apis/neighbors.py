"""For pixels of rare classes, the stored pixels of the train set that speak for a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from torch import Tensor

from mmseg_ltmi.core.class_names import distinct_names
from mmseg_ltmi.core.posterior import ClassMemory
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.core.progress import progress_bar
from mmseg_ltmi.models.segmentors import last_head
from mmseg_ltmi.visualization import PixelNeighbors

from .browse import wanted_classes
from .config_changes import read_config
from .feature_pixels import pixels_of
from .split_data import split_loader
from .trained_model import class_prior_of, load_memory, load_model

PATCH = 0.2
"""Side of a picture around a pixel, as a share of the image's shorter side."""


def find_neighbors(
    config: str | Path | Config,
    checkpoint: str | Path,
    memory: ClassMemory | str | Path,
    split: str = 'test',
    classes: Sequence[str] | None = None,
    per_class: int = 2,
    num_keys: int = 5,
    class_prior: Any = None,
    seed: int = 0,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
) -> list[PixelNeighbors]:
    """The nearest stored pixels of some that are found and some that are missed.

    Args:
        config: a file, or a Config.
        checkpoint: file with the weights.
        memory: of :func:`make_memory`, or its file.
        split: 'train', 'val' or 'test'.
        classes: names of the classes to look at; None takes the tail.
        per_class: pixels of each class that are found, and as many that are missed, each of another
            image; fewer where there are none.
        num_keys: stored pixels of each.
        class_prior: as for LogitAdjustedLoss; None takes the model's, or that of a metric.
        seed: of the draw of pixels.
        progress: show a progress bar on stderr.
        options: values of the config by dotted key.

    Returns:
        the rarest class first, and of each class what is found first.

    Raises:
        OSError: a file that is not there, such as an image that the memory was made of.
        ValueError: a checkpoint or a memory of another model, a memory that does not say where its
            pixels come from, no such split, no labels in it, unknown classes, or no pixel of them.
    """
    cfg = read_config(config, options)
    model: Any = load_model(cfg, checkpoint)
    where = 'the memory' if isinstance(memory, ClassMemory) else str(memory)
    memory = load_memory(model, memory)
    if memory.origins is None:
        raise ValueError(f'{where} does not say where its pixels come from: make it again')
    dataset: Any = split_loader(cfg, split, num_workers=0).dataset
    metainfo = metainfo_of(dataset)
    prior = class_prior_of(class_prior, cfg, model, metainfo)
    names = distinct_names(metainfo['classes'])
    wanted = wanted_classes(classes, prior, tuple(names))
    drawn = _draw(model, dataset, wanted, per_class, seed, split if progress else '')
    if not drawn:
        raise ValueError(
            f'the {split} split has no pixel of {[names[c] for c in wanted]} at the size of the '
            'feature map: name other classes, or take another split'
        )
    device = next(model.parameters()).device
    memory = memory.to(device)
    found = []
    for truth, decision, feature, position, path in drawn:
        query = memory.embed(feature[None].to(device))
        similarity, places = memory.similar_keys(query, num_keys)
        keys = [
            (_patch(memory, place), names[int(memory.key_labels[place])], float(value))
            for value, place in zip(similarity[0], places[0].tolist(), strict=True)
        ]
        found.append(PixelNeighbors(_cut(path, position), names[truth], names[decision], keys))
    return found


def _draw(
    model: Any, dataset: Any, wanted: Sequence[int], per_class: int, seed: int, shown: str
) -> list[tuple[int, int, Tensor, Tensor, str]]:
    """Pixels (truth, decision, feature, position, path) in the order of the classes."""
    random = np.random.default_rng(seed)
    kept: dict[tuple[int, bool], list[tuple[float, tuple]]] = {
        (c, hit): [] for c in wanted for hit in (True, False)
    }
    reader, classifier = model.reader, last_head(model).conv_seg
    with progress_bar(len(dataset) if shown else None, f'reading the {shown} split') as advance:
        for pixels in pixels_of(model, dataset, range(len(dataset))):
            features, labels = pixels['features'], pixels['labels']
            decision = reader.classes(classifier(features.T[None, :, :, None]))[0, :, 0]
            for (c, hit), best in kept.items():
                place = ((labels == c) & ((decision == c) == hit)).nonzero()[:, 0]
                if not len(place):
                    continue
                chance = float(random.random())
                pixel = int(place[int(random.integers(len(place)))])
                entry = (c, int(decision[pixel]), features[pixel].cpu().clone())
                best.append((chance, (*entry, pixels['position'][pixel], pixels['path'])))
                best.sort(key=lambda item: -item[0])
                del best[per_class:]
            advance()
    return [entry for best in kept.values() for _, entry in best]


def _patch(memory: ClassMemory, key: int) -> np.ndarray:
    origins: Any = memory.origins
    return _cut(origins.images[int(origins.image[key])], origins.position[key])


def _cut(path: str, position: Tensor) -> np.ndarray:
    """The surroundings of a pixel, uint8 (S, S, 3) RGB; what is outside of the image is grey."""
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(
            f'the image {path} cannot be read: were images moved since the memory was made? Make '
            'it again with mmseg-ltmi memory'
        )
    half = max(int(PATCH * min(image.shape[:2]) / 2), 1)
    row, column = (int(share * side) for share, side in zip(position, image.shape[:2], strict=True))
    border = (half,) * 4
    image = cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    return image[row : row + 2 * half + 1, column : column + 2 * half + 1, ::-1].copy()
