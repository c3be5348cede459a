"""What is inside a wrapped data set."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


def pipeline_steps(dataset: Any) -> Any:
    """The transforms of a data set, or of a wrapper's own; none where it has no pipeline."""
    pipeline = getattr(dataset, 'pipeline', None) or ()
    return getattr(pipeline, 'transforms', pipeline)


def unwrapped(dataset: Any) -> list[Any]:
    """The data sets inside a wrapped one, of any kind; one that is not wrapped itself."""
    return [leaf for part in wrapped(dataset) for leaf in unwrapped(part)] or [dataset]


def metainfo_of(dataset: Any) -> dict[str, Any]:
    """That of a data set, or of the first one in a wrapper that has none; {} if it has none."""
    own = getattr(dataset, 'metainfo', None) or getattr(unwrapped(dataset)[0], 'metainfo', None)
    return own or {}


def wrapped(dataset: Any) -> list[Any]:
    """What a wrapper of any kind holds, wrapped or not; [] of a data set that wraps none."""
    # A BaseDataset loads its own images, whatever a subclass calls its attributes.
    if not hasattr(dataset, 'load_data_list'):
        for parts in (getattr(dataset, 'datasets', None), [getattr(dataset, 'dataset', None)]):
            if parts and isinstance(parts, (list, tuple)) and all(map(_is_dataset, parts)):
                return list(parts)
    return []


def _is_dataset(value: Any) -> bool:
    # And not, say, the name of one. A wrapper need not have metainfo of its own.
    known = isinstance(value, Dataset) or hasattr(value, 'metainfo')
    return known or (value is not None and bool(wrapped(value)))


def is_subset(dataset: Any) -> bool:
    # torch.utils.data.Subset and what looks like it; mmengine's wrappers have no indices.
    return hasattr(dataset, 'dataset') and hasattr(dataset, 'indices')
