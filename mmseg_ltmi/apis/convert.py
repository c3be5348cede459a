"""Turns an LTMI checkpoint into one of the stock head, with the same predictions."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmseg_ltmi.core.posterior import ScoreReader
from mmseg_ltmi.core.posterior.score_reader import IS_READ, MEMORY
from mmseg_ltmi.core.tensor_file import save_tensors
from mmseg_ltmi.models.checkpoint_file import check_is_another, read_checkpoint

BIASED = ('conv_seg', 'cls_embed', 'mask_norm')
"""Layers whose bias is a constant per class: of most heads, of mask classifiers, of Segmenter."""

READER = 'score_reader.'
OF_EARLIER_VERSIONS = {
    'inference_prior.natural_shift': 'score_reader.natural_shift',
    'inference_prior.log_prior': 'score_reader.log_prior',
    'decision.shift': 'score_reader.point_shift',
    'decision.iou': 'score_reader.iou',
    'decision.union': 'score_reader.union',
}


def convert(checkpoint: str | Path, out: str | Path, tau_test: float = 0.0) -> dict[str, Tensor]:
    """Write a checkpoint with stock heads; its state dict.

    Args:
        checkpoint: file with the weights of a model with LTMI heads.
        out: file to write; the meta of the checkpoint, such as its classes, goes into it.
        tau_test: operating point that the stock head is to have, 0 natural and 1 balanced.

    Raises:
        OSError: a file that is not there, or cannot be written.
        ValueError: a file that is no checkpoint, the same file twice, or what :func:`to_stock`
            raises.
    """
    check_is_another(out, checkpoint)
    content, trained = read_checkpoint(checkpoint)
    try:
        state, folded = _to_stock(trained, tau_test)
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error
    # So that an LTMI segmentor or head, whose loss may state a shift, does not add it again, and
    # knows the natural posterior. No other loader looks at it, as it would at a key.
    marked: Any = OrderedDict(state)
    places = (READER.rstrip('.'), _last_head(state).rstrip('.'))
    marked._metadata = OrderedDict({place: {'version': 1, IS_READ: folded} for place in places})
    save_tensors({'meta': content.get('meta', {}), 'state_dict': marked}, out)
    return state


def to_stock(state: dict[str, Tensor], tau_test: float = 0.0) -> dict[str, Tensor]:
    """State dict of the model with stock heads.

    What a ScoreReader adds to the scores is a constant per class; it goes into the bias of
    ``conv_seg``, or of a mask classifier's ``cls_embed`` (a tau then acts on the queries). What
    only training needs (queue, projections, temperature, the classifier of regions, counts, a
    teacher) is left out.

    Args:
        state: state dict of a model with LTMI heads, or of one such head. Those of earlier versions
            are read too.
        tau_test: operating point that the stock head is to have.

    Raises:
        ValueError: no LTMI head, one without a bias, an unknown prior with ``tau_test``, the IoU
            rule in the checkpoint, or a tau in it and ``tau_test``.
    """
    return _to_stock(state, tau_test)[0]


def _to_stock(
    state: dict[str, Tensor], tau_test: float
) -> tuple[dict[str, Tensor], list[float] | bool]:
    """And the part of what was folded that is no part of the natural posterior.

    True where there is none, or where it acts on queries, so that no map of it is known.
    """
    folded: list[float] | bool = True
    state = {_present_name(k): v for k, v in state.items() if not k.startswith('teacher.')}
    places = [k.removesuffix('log_prior') for k in state if k.endswith(f'{READER}log_prior')]
    if not places:
        raise ValueError(
            f'it has no LTMI head (no key ends in {READER}log_prior). A stock checkpoint needs no '
            'conversion if its loss had neither class weights nor a prior. With them, build it '
            "with model.type='LTMIEncoderDecoder' and export ReadScores(model) (docs/export.md)"
        )
    last = _last_head(state)
    if READER not in places:  # in earlier versions the segmentor had the point of an LTMI head
        state = {(last if k.startswith(READER) else '') + k: v for k, v in state.items()}
    heads = [place.removesuffix(READER) for place in places]
    ours = (*(f'{head}{term}.' for head in heads for term in ('contrast', 'region')), READER)
    stock = {
        k: v
        for k, v in state.items()
        if not k.startswith(ours) and f'.{READER}' not in k and not k.endswith('.online_counts')
    }
    for place in places:
        # With a stock head the segmentor has the reader.
        head = last if place == READER else place.removesuffix(READER)
        if head != last and head.startswith('decode_head.'):
            continue  # the coarse head of a cascade, whose raw scores the next one takes
        found = (f'{head}{name}.bias' for name in BIASED)
        bias = next((key for key in found if key in stock), f'{head}conv_seg.bias')
        if bias not in stock:
            raise ValueError(
                f'it has no {bias} to carry the shift (a cosine classifier, PointHead): it has no '
                'stock form. Keep its config; docs/export.md says how to export it'
            )
        no_object = int(bias.endswith('cls_embed.bias'))  # whose odds stay
        reader = _reader(state, place, len(stock[bias]) - no_object, tau_test)
        shift = F.pad(reader.shift(), (0, no_object))
        stock[bias] = (stock[bias] + shift).to(stock[bias].dtype)
        if head == last and not no_object:
            folded = reader.reading_shift().tolist()
    return stock, folded


def _present_name(key: str) -> str:
    for old, new in OF_EARLIER_VERSIONS.items():
        if key == old or key.endswith(f'.{old}'):
            return key.removesuffix(old) + new
    return key


def _last_head(state: dict[str, Tensor]) -> str:
    """What the keys of the head that predicts begin with."""
    heads = [key.split('.') for key in state if key.startswith('decode_head.')]
    if not heads:
        return ''  # the state dict of a head
    last = max((int(parts[1]) for parts in heads if parts[1].isdigit()), default=None)
    return 'decode_head.' if last is None else f'decode_head.{last}.'


def _reader(state: dict[str, Tensor], place: str, num_classes: int, tau_test: float) -> ScoreReader:
    reader = ScoreReader(num_classes, tau_test=tau_test)
    found = {n: state[place + n] for n in reader.state_dict() if place + n in state}
    for name in ('natural_shift', 'log_prior'):
        if name not in found or found[name].shape != (num_classes,):
            raise ValueError(
                f'it has no {place}{name} of {num_classes} numbers, which an LTMI head writes: it '
                'is incomplete'
            )
    if any(key.startswith(f'{place}{MEMORY}') for key in state):
        raise ValueError(
            'it holds a memory (mmseg-ltmi choose --embed), which a stock model cannot read: '
            'convert the checkpoint that it was made of'
        )
    reader.load_state_dict(found)
    if reader.has_iou_rule:
        raise ValueError(
            'it holds the IoU rule as its operating point (mmseg-ltmi choose --embed), which a '
            'stock model cannot read: convert the checkpoint that it was made of, with --tau-test, '
            "or embed a tau (--choose 'tau by mIoU')"
        )
    if tau_test and reader.has_point:
        raise ValueError(
            'it holds an operating point (mmseg-ltmi choose --embed), which is converted with it: '
            f'leave --tau-test out, which is {tau_test:g}'
        )
    try:
        reader.shift()
    except RuntimeError as error:
        raise ValueError(f'{place[:-1]}: {error}') from error
    return reader
