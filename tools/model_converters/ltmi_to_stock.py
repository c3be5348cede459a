"""Turn an LTMI checkpoint into one of the stock head, with the same predictions.

What an LTMI head adds to its scores at inference is a constant per class; it goes into the bias of
``conv_seg``, and what only training needs (queue, projections, temperature, a moving-average
teacher, optimizer) is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from mmseg_ltmi.models.checkpoint_file import read_checkpoint
from mmseg_ltmi.models.decode_heads.inference_prior import InferencePrior


def to_stock(state: dict[str, Tensor], tau_test: float = 0.0) -> dict[str, Tensor]:
    """State dict of the model with stock heads.

    Args:
        state: state dict of a model with LTMI heads.
        tau_test: operating point that the stock head is to have.

    Raises:
        ValueError: no LTMI head, one without a bias, an unknown prior with ``tau_test``, or an
            operating point in the checkpoint.
    """
    iou, shift = state.get('decision.iou'), state.get('decision.shift')
    if (iou is not None and not iou.isnan().any()) or (shift is not None and shift.any()):
        raise ValueError(
            'it holds an operating point (choose_operating_point.py --embed), which a stock model '
            'cannot read: convert the checkpoint that it was made of, with --tau-test'
        )
    heads = [key[: -len('inference_prior.log_prior')] for key in state if _is_prior(key)]
    if not heads:
        raise ValueError('it has no LTMI head (no key ends in inference_prior.log_prior)')
    stock = {k: v for k, v in state.items() if not _is_ours(k, heads)}
    for head in heads:
        bias = f'{head}conv_seg.bias'
        if bias not in stock:
            raise ValueError(f'it has no {bias} to carry the shift: use the LTMI head')
        prior = InferencePrior(len(stock[bias]), tau_test=tau_test)
        prefix = f'{head}inference_prior.'
        lost = [prefix + name for name in prior.state_dict() if prefix + name not in state]
        if lost:
            raise ValueError(f'it has no {lost[0]}, which an LTMI head writes: it is incomplete')
        prior.load_state_dict({name: state[prefix + name] for name in prior.state_dict()})
        try:
            shift = prior.shift()
        except RuntimeError as error:
            raise ValueError(f'{prefix[:-1]}: {error}') from error
        stock[bias] = stock[bias] + shift
    return stock


def _is_prior(key: str) -> bool:
    return key.endswith('inference_prior.log_prior')


def _is_ours(key: str, heads: list[str]) -> bool:
    ours = ('contrast.', 'inference_prior.')
    return key.startswith(('decision.', 'teacher.')) or any(
        key.startswith(head + name) for head in heads for name in ours
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--tau-test', type=float, default=0.0, help='0 natural, 1 balanced')
    args = parser.parse_args()
    try:
        checkpoint, trained = read_checkpoint(args.checkpoint)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    try:
        state = to_stock(trained, args.tau_test)
    except ValueError as error:
        sys.exit(f'{args.checkpoint}: {error}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'meta': checkpoint.get('meta', {}), 'state_dict': state}, args.out)
    print(f'{args.out}: {len(state)} tensors, read at tau_test={args.tau_test:g}')


if __name__ == '__main__':
    main()
