"""Source text of a config that changes heads; a node is text, or brackets with items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LINE = 100


@dataclass
class HeadChanges:
    """Of one head, as source text.

    Attributes:
        type: its LTMI form.
        loss: of ``loss_decode``, a node.
        merges: into the head's loss, instead of replacing it.
        contrast: whether it gets a contrastive term.
    """

    type: str | None = None
    loss: Any = None
    merges: bool = True
    contrast: bool = False

    def __bool__(self) -> bool:
        return any((self.type, self.loss, self.contrast))


def ltmi_loss_node(loss: dict) -> Any:
    """LTMILoss in the place of a cross-entropy, as a node; ``'ltmi_loss'`` if nothing is kept."""
    kept = {
        'loss_weight': (loss.get('loss_weight', 1.0), 1.0),
        'avg_non_ignore': (loss.get('avg_non_ignore', True), True),
        'ignore_index': (loss.get('ignore_label', 255), 255),  # of OhemCrossEntropy
    }
    items = [(key, repr(value)) for key, (value, default) in kept.items() if value != default]
    return ('dict(', [(None, '**ltmi_loss'), *items], ')') if items else 'ltmi_loss'


def head_node(change: HeadChanges) -> Any:
    """What is merged into a head."""
    items: list[tuple[str | None, Any]] = []
    if change.type is not None:
        items.append(('type', repr(change.type)))
    loss = change.loss
    if not change.merges and (loss == 'ltmi_loss' or loss[0] == 'dict('):
        parts = [(None, '**ltmi_loss')] if loss == 'ltmi_loss' else loss[1]
        loss = ('dict(', [('_delete_', 'True'), *parts], ')')
    if loss is not None:
        items.append(('loss_decode', loss))
    if change.contrast:
        items.append(('contrast', 'dict()'))
    return 'dict(', items, ')'


def head_statements(place: str, change: HeadChanges) -> list[str]:
    """What changes a head in a list."""
    lines = []
    if change.type is not None:
        contrast = ', contrast=dict()' if change.contrast else ''
        lines.append(f'{place}.update(type={change.type!r}{contrast})')
    if change.loss is not None and change.merges:
        lines.append(f'{place}.loss_decode.update(ltmi_loss)')
    elif change.loss is not None:
        lines.append(lay_out(change.loss, f'{place}.loss_decode = '))
    return lines


def lay_out(node: Any, before: str = '', indent: int = 0, after: int = 0) -> str:
    """A node as text, in one line if it fits, else with a line for each item.

    Args:
        node: text, or (opening bracket, (key or None, node) of each item, closing bracket).
        before: text to its left.
        indent: of the line that it starts on.
        after: characters to its right.
    """
    if isinstance(node, str):
        return before + node
    opening, items, closing = node
    inner = [(f'{key}=' if key else '', item) for key, item in items]
    flat = before + opening + ', '.join(lay_out(i, key, -10_000) for key, i in inner) + closing
    if indent + len(flat) + after <= LINE:
        return flat
    lines = [' ' * (indent + 4) + lay_out(i, key, indent + 4, 2) for key, i in inner]
    return before + opening + '\n' + ',\n'.join(lines) + closing
