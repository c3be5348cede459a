"""Turns an LTMI checkpoint into one of the stock head, with the same predictions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mmseg_ltmi.core.posterior import ScoreReader
from mmseg_ltmi.models.checkpoint_file import read_checkpoint

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
        out: file to write.
        tau_test: operating point that the stock head is to have, 0 natural and 1 balanced.

    Raises:
        OSError: a file that is not there.
        ValueError: a file that is no checkpoint, or what :func:`to_stock` raises.
    """
    content, trained = read_checkpoint(checkpoint)
    try:
        state = to_stock(trained, tau_test)
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    torch.save({'meta': content.get('meta', {}), 'state_dict': state}, out)
    return state


def to_stock(state: dict[str, Tensor], tau_test: float = 0.0) -> dict[str, Tensor]:
    """State dict of the model with stock heads.

    What a ScoreReader adds to the scores is a constant per class; it goes into the bias of
    ``conv_seg``. What only training needs (queue, projections, temperature, a teacher) is left
    out.

    Args:
        state: state dict of a model with LTMI heads, or of one such head. Those of earlier versions
            are read too.
        tau_test: operating point that the stock head is to have.

    Raises:
        ValueError: no LTMI head, one without a bias, an unknown prior with ``tau_test``, or an
            operating point in the checkpoint.
    """
    state = {_present_name(k): v for k, v in state.items() if not k.startswith('teacher.')}
    if any(_is_point(key, value) for key, value in state.items()):
        raise ValueError(
            'it holds an operating point (mmseg-ltmi choose --embed), which a stock model cannot '
            'read: convert the checkpoint that it was made of, with --tau-test'
        )
    places = [k.removesuffix('log_prior') for k in state if k.endswith(f'{READER}log_prior')]
    if not places:
        raise ValueError(f'it has no LTMI head (no key ends in {READER}log_prior)')
    heads = {place: _head_of(place, state) for place in places}
    ours = (*(f'{head}contrast.' for head in heads.values()), READER)
    stock = {k: v for k, v in state.items() if not k.startswith(ours) and f'.{READER}' not in k}
    for place, head in heads.items():
        bias = f'{head}conv_seg.bias'
        if bias not in stock:
            raise ValueError(f'it has no {bias} to carry the shift: use the LTMI head')
        stock[bias] = stock[bias] + _shift(state, place, len(stock[bias]), tau_test)
    return stock


def _present_name(key: str) -> str:
    for old, new in OF_EARLIER_VERSIONS.items():
        if key == old or key.endswith(f'.{old}'):
            return key.removesuffix(old) + new
    return key


def _is_point(key: str, value: Tensor) -> bool:
    if key.endswith(f'{READER}point_shift'):
        return bool(value.any())
    return key.endswith(f'{READER}iou') and not bool(value.isnan().any())


def _head_of(place: str, state: dict[str, Tensor]) -> str:
    """What the keys of the head begin with whose scores the reader at ``place`` reads."""
    head = place.removesuffix(READER)
    if head or any(key.startswith('conv_seg.') for key in state):
        return head
    # With a stock head the segmentor has the reader; the last of several heads predicts.
    heads = [key.split('.') for key in state if key.startswith('decode_head.')]
    last = max((int(parts[1]) for parts in heads if parts[1].isdigit()), default=None)
    return 'decode_head.' if last is None else f'decode_head.{last}.'


def _shift(state: dict[str, Tensor], place: str, num_classes: int, tau_test: float) -> Tensor:
    reader = ScoreReader(num_classes, tau_test=tau_test)
    for name in ('natural_shift', 'log_prior'):
        value, own = state.get(place + name), reader.get_buffer(name)
        if value is None or value.shape != own.shape:
            raise ValueError(
                f'it has no {place}{name} of {num_classes} numbers, which an LTMI head writes: it '
                'is incomplete'
            )
        own.copy_(value)
    try:
        return reader.shift()
    except RuntimeError as error:
        raise ValueError(f'{place[:-1]}: {error}') from error
