"""Says which split of a config has no images, and where they were looked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .config_changes import unwrapped_configs

EMPTY = ('need at least one array', 'num_samples should be a positive integer')


@contextmanager
def naming_empty_split(split: str, dataset: Any) -> Iterator[Callable[[Any], None]]:
    """While a data set is built: say which split has no images, and where they were looked for.

    It yields what says so of a data set that was built without images.

    Args:
        split: 'train', 'val' or 'test'.
        dataset: its config.

    Raises:
        ValueError: mmengine's "need at least one array to concatenate", or torch's of a sampler
            that has nothing to draw from, in other words.
    """

    def check_length(built: Any) -> None:
        if not len(built):
            raise ValueError(EMPTY[0])

    try:
        yield check_length
    except ValueError as error:
        if not any(text in str(error) for text in EMPTY):
            raise
        places = [
            os.path.join(part.get('data_root') or '', place)
            for part in unwrapped_configs(dataset)
            for place in (*(part.get('data_prefix') or {}).values(), part.get('ann_file'))
            if place
        ]
        raise ValueError(
            f'the {split} split has no images ({", ".join(places) or "where its data set looks"}): '
            'check data_root, data_prefix, ann_file and img_suffix of its data set'
        ) from error
