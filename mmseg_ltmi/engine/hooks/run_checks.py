"""Whether class prior, train set, checkpoint and evaluated data set of a run mean the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmseg.registry import MODELS
from torch import nn
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, SequentialSampler

from mmseg_ltmi.core.priors import ClassPrior, PriorBuffer
from mmseg_ltmi.core.priors.as_trained import counted_resampling
from mmseg_ltmi.core.priors.dataset_parts import own_ignore_index
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of, unwrapped
from mmseg_ltmi.core.priors.label_space import (
    check_ignored_is_free,
    check_same_classes,
    check_same_reading,
    check_trained_on,
    labels_of,
)
from mmseg_ltmi.core.priors.resampling import resampling_of
from mmseg_ltmi.datasets import RareClassDataset
from mmseg_ltmi.evaluation import LogitAdjustmentSweep
from mmseg_ltmi.evaluation.metric_prior import (
    check_classes,
    check_groups,
    check_log_prior,
    read_metric_prior,
)
from mmseg_ltmi.models.decode_heads import LTMIHeadMixin
from mmseg_ltmi.models.segmentors.heads import sums_masks

PLAIN_SAMPLERS = (
    DefaultSampler,
    InfiniteSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
)
LIBRARIES = ('mmdet', 'mmengine', 'mmseg', 'torch')
"""Whose subclasses of a plain sampler draw as evenly; what one's own does is not known."""
REMEDY = (
    'count the prior of the train set with mmseg-ltmi count, or put its classes and counts in the '
    "train set's order"
)
SAME_REMEDY = (
    'count the prior of the train set with mmseg-ltmi count; if other files were counted, which '
    'are numbered otherwise and mean the same, take "labels" out of the prior file '
    '(ClassPrior.load(NAME).save(FILE) writes that of a published one)'
)


def check_prior(prior: PriorBuffer, dataset: Any) -> None:
    """Refuse a prior that is missing, or of other classes than a train set or a part of it.

    Raises:
        FileNotFoundError: its file is missing.
        ValueError: its classes or labels mean others.
    """
    prior.check_found()
    known = prior.class_prior
    if known is None:
        return
    for name, part in _parts(dataset, 'the train set'):
        who, classes = (prior.describe(), name), metainfo_of(part).get('classes')
        check_same_classes(known.classes, classes, who, REMEDY, strict=False)
        if known.labels:
            check_same_reading(known.labels, _reading_of(part), who, SAME_REMEDY)


def check_number(head: Any, dataset: Any) -> None:
    """Raise ValueError where a train set has another number of classes than the head that predicts.

    Its labels then mean others than the head's scores. One score alone is of two classes.
    """
    number = getattr(head, 'num_classes', None)
    if number is None or getattr(head, 'out_channels', None) == 1:
        return
    for name, part in _parts(dataset, 'the train set'):
        classes = metainfo_of(part).get('classes')
        if classes and len(classes) != number:
            raise ValueError(
                f'{type(head).__name__} has num_classes={number}, but {name} names {len(classes)} '
                f'classes: give the decode heads num_classes={len(classes)} and a class prior of '
                f'these classes, or the data set metainfo=dict(classes=[...]) with {number} names'
            )


def check_parts(dataset: Any) -> None:
    """Raise ValueError where the parts of a train set have other classes than the first one."""
    (first, part), *others = _parts(dataset, 'the train set')
    remedy = 'give the parts of the train set the same metainfo=dict(classes=[...])'
    classes = metainfo_of(part).get('classes')
    for name, other in others:
        check_same_classes(classes, metainfo_of(other).get('classes'), (first, name), remedy)


def resampling_warning(prior: PriorBuffer, dataset: Any) -> str:
    """That a prior was counted as if a train set were resampled otherwise; '' if it was not."""
    known, by = prior.class_prior, resampling_of(dataset)
    if known is None or counted_resampling(known.source) == by:
        return ''
    counted = counted_resampling(known.source) or 'labels as they are'
    how = f'of {counted}, but the train set is resampled by {by or "nothing"}'
    return (
        f'{prior.describe()} is {how}{_most_apart(known, dataset)}: count it as training sees the '
        'classes, with mmseg-ltmi count CONFIG --as-trained 2000'
    )


def reading_warning(head: Any, dataset: Any) -> str:
    """That the head that predicts reads its scores for the classes of a resampled train set.

    '' if it does not, or the train set is not resampled.
    """
    by = resampling_of(dataset)
    if not by or getattr(head, 'test_prior', None) is not None:
        return ''
    form = f'LTMI{type(head).__name__}'
    remedy = 'give decode_head.test_prior, such as the raw prior of mmseg-ltmi count CONFIG'
    if not hasattr(head, 'test_prior'):
        remedy = f'make the head {form} and {remedy}'
    if sums_masks(head) or not (hasattr(head, 'test_prior') or form in MODELS):
        remedy = 'choose a tau on such images with mmseg-ltmi choose'
    return (
        f'{type(head).__name__} reads its scores for images whose classes are as frequent as in '
        f'training, which is resampled by {by}. If the model is used on others, {remedy}'
    )


def _most_apart(prior: ClassPrior, dataset: Any) -> str:
    # The class of which a prior and images that are drawn whole have the most different shares.
    if not isinstance(dataset, RareClassDataset):
        return ''
    drawn, counted = dataset.draw.image_shares(), prior.probs().numpy()
    if len(drawn) != len(counted):
        return ''
    both = (drawn > 0) & (counted > 0)
    c = int(np.abs(np.log(drawn / counted, where=both, out=np.zeros(len(drawn)))).argmax())
    return (
        f' ({prior.names[c]} has {100 * counted[c]:.3g} % of the pixels in the prior and about '
        f'{100 * drawn[c]:.3g} % in the images that are drawn)'
    )


def trained_ignored_class_warning(head: Any, dataset: Any) -> str:
    """That a head trains a class which a train set has as its ``ignore_index``; '' otherwise."""
    for name, part in _parts(dataset, 'the train set'):
        index = own_ignore_index(part)
        if index in range(head.num_classes) and index != head.ignore_index:
            return (
                f'class {index}, which {name} has as its ignore_index, is trained: '
                f'{type(head).__name__} has ignore_index={head.ignore_index}. Give both the same'
            )
    return ''


def sampler_warning(prior: PriorBuffer, loader: Any) -> str:
    """That a train loader draws in its own way, which no count follows; '' if it does not."""
    batches = getattr(loader, 'batch_sampler', None)
    sampler = getattr(batches, 'sampler', getattr(loader, 'sampler', None))
    own = [
        type(part).__name__
        for part, plain in ((batches, BatchSampler), (sampler, PLAIN_SAMPLERS))
        if part is not None
        and not (isinstance(part, plain) and type(part).__module__.split('.')[0] in LIBRARIES)
    ]
    if prior.is_online or prior.is_open or not own:
        return ''
    return (
        f'{" of ".join(own)} draws the images in its own way, which no count follows: unless '
        f'{prior.describe()} was counted for it, or it prefers no class, draw by a '
        "RareClassDataset, or take class_prior='online'"
    )


def has_other_classes(trained: Mapping[str, Any], dataset: Any) -> bool:
    """Whether a checkpoint (see ``trained_labels``) is of other classes than a train set."""
    classes = metainfo_of(dataset).get('classes')
    try:
        check_same_classes(trained.get('classes'), classes, ('', ''), '')
    except ValueError:
        return True
    return False


def check_evaluated(
    trained: Mapping[str, Any], dataset: Any, who: tuple[str, str], unless: str
) -> None:
    """Refuse an evaluated data set, or a part of it, of other classes or labels.

    Args:
        trained: of :func:`metainfo_of`, what the network was trained on.
        dataset: the evaluated data set, wrapped or not.
        who: how messages call the two.
        unless: as for check_trained_on, where another ``reduce_zero_label`` is an error.
    """
    for name, part in _parts(dataset, who[1]):
        check_trained_on(trained, metainfo_of(part), (who[0], name), unless)


def check_named_priors(
    model: nn.Module, metrics: list[Any], dataset: Any, predicting: ClassPrior | None = None
) -> None:
    """Refuse priors of other classes than an evaluated data set's, before it is evaluated.

    Args:
        model: a stock checkpoint is read by the priors of its config.
        metrics: each may name one.
        dataset: the evaluated data set.
        predicting: the prior by which the model will predict. Metrics that name another one are
            refused, as they would refuse it themselves at the first validation.
    """
    metainfo = metainfo_of(dataset)
    classes = [str(name) for name in metainfo.get('classes') or ()]
    for part in model.modules():
        if isinstance(part, PriorBuffer) and part.class_prior is not None:
            check_classes(part.class_prior, classes, part.describe())
    for metric in metrics if classes else ():
        try:
            prior = read_metric_prior(getattr(metric, 'class_prior', None), metainfo)
        except FileNotFoundError:
            if any(isinstance(part, LTMIHeadMixin) for part in model.modules()):
                continue  # the metric takes the head's, once that predicts
            raise
        if prior is None:
            continue
        check_classes(prior, classes)
        if predicting is not None:
            is_sweep = isinstance(metric, LogitAdjustmentSweep)
            (check_log_prior if is_sweep else check_groups)(prior, predicting)


def check_ignore_index(head: Any, metrics: list[Any], dataset: Any, name: str) -> str:
    """Refuse metrics that judge a class which is none in training, or the other way round.

    Args:
        head: a decode head.
        metrics: those that have no ``ignore_index`` are left out.
        dataset: the evaluated data set.
        name: how messages call it.

    Returns:
        a warning where the labels differ and none is a class; '' otherwise.

    Raises:
        ValueError: naming who has which.
    """
    check_ignored_is_free(head.ignore_index, head.num_classes, type(head).__name__)
    classes = range(head.num_classes)
    parts = [(who, own_ignore_index(part)) for who, part in _parts(dataset, name)]
    # What a data set has by default says nothing.
    stated = [(type(head).__name__, head.ignore_index), *((w, i) for w, i in parts if i in classes)]
    warning = ''
    for metric in metrics:
        judged = getattr(metric, 'ignore_index', None)
        for who, index in stated:
            if judged is None or index == judged:
                continue
            differ = (
                f'{who} has ignore_index={index}, {type(metric).__name__} has ignore_index={judged}'
            )
            remedy = 'give the decode heads, the data sets and the metrics the same ignore_index'
            if index in classes or judged in classes:
                raise ValueError(f'{differ}, and one of them is a class: {remedy}')
            warning = f'{differ}: {remedy}'
    return warning


def _parts(dataset: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each data set inside a wrapped one, and how messages call it."""
    parts = unwrapped(dataset)
    for i, part in enumerate(parts):
        yield name if len(parts) == 1 else f'part {i} of {name} ({type(part).__name__})', part


def _reading_of(part: Any) -> dict[str, Any]:
    has_images = hasattr(part, 'get_data_info') and len(part)
    return labels_of(part.get_data_info(0) if has_images else metainfo_of(part))
