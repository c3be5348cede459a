"""Says which split of a config has no images, and where they were looked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .config_changes import unwrapped_configs


@contextmanager
def naming_empty_split(split: str, dataset: Any) -> Iterator[None]:
    """While a data set is built: say which split has no images, and where they were looked for.

    Args:
        split: 'train', 'val' or 'test'.
        dataset: its config.

    Raises:
        ValueError: mmengine's "need at least one array to concatenate", in other words.
    """
    try:
        yield
    except ValueError as error:
        if 'need at least one array' not in str(error):
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
