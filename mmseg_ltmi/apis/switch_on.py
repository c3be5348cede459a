"""Writes the config that trains another config with LTMI.

The new file builds on the given one and holds only what changes: the losses, the head that
predicts, and the contrastive term.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.decode_heads.point_head import PointHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

from mmseg_ltmi.core.losses import LogitAdjustedLoss
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.models.decode_heads import (
    UNSUPPORTED_HEADS,
    LTMIHeadMixin,
    LTMIMaskHeadMixin,
)

from .config_changes import class_of, is_a, unscoped_name
from .config_source import HeadChanges, head_node, head_statements, lay_out, ltmi_loss_node
from .train_set import PRIORS, leaves, published_name, resampling

PACKAGE = 'mmseg_ltmi'
CROSS_ENTROPIES = ('CrossEntropyLoss', 'OhemCrossEntropy')
MERGING = {'avg_non_ignore', 'loss_weight', 'type', 'use_mask', 'use_sigmoid', '_scope_'}
"""Keys of a cross-entropy that may stay where LTMILoss is merged into it."""


class SwitchOnError(ValueError):
    """A config for which there is no LTMI form; the message has the reason and the remedy."""


@dataclass(frozen=True)
class SwitchOn:
    """What :func:`switch_on` makes.

    Args:
        text: of the new config file.
        notes: what was left as it is or given up, and why, a sentence each.
    """

    text: str
    notes: list[str] = field(default_factory=list)


def main(
    config: str | Path, class_prior: str | Path | None, out: str | Path, force: bool = False
) -> None:
    """Write the new config, print the notes and the command that trains it.

    Args:
        config: as for :func:`switch_on`.
        class_prior: as for :func:`switch_on`.
        out: file to write; its folder is made.
        force: overwrite it where it exists.

    Raises:
        FileExistsError: ``out`` exists, without ``force``.
        ValueError: ``out`` is no .py file, or the given config itself.
    """
    path = Path(out)
    if path.suffix != '.py':
        raise ValueError(f'{out} must end in .py: it becomes a config')
    if path.exists() and os.path.isfile(config) and path.samefile(config):
        raise ValueError(f'{out} is the given config, on which the new one builds: name another')
    if path.exists() and not force:
        raise FileExistsError(f'{out} exists already: name another file, or overwrite with --force')
    made = switch_on(config, class_prior, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.text, encoding='utf-8')
    for note in made.notes:
        print(f'note: {note}')
    print(f'wrote {out}; train it with\n    mmseg-ltmi train {out}')


def switch_on(
    config: str | Path, class_prior: str | Path | None = None, folder: str | Path | None = None
) -> SwitchOn:
    """The config that trains ``config`` with LTMI.

    Cross-entropy becomes LTMILoss in every head, with its loss_weight. The head that predicts takes
    its LTMI form and the contrastive term; of PointRend the coarse head takes the latter, as
    PointHead sees no map.

    Args:
        config: path, or a name such as
            ``mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py``.
        class_prior: a published name or a file; None takes the published one of the train set. If
            there is none, or the train set is resampled, ClassPriorHook counts before the run.
        folder: where the new config will lie. Files in it are named as seen from there, so that the
            folder can be moved. None names all files by their whole path.

    Raises:
        SwitchOnError: no LTMI form.
        FileNotFoundError: no such config or class prior.
    """
    config = str(config)
    class_prior = None if class_prior is None else str(class_prior)
    base = config if '::' in config else os.path.abspath(os.path.expanduser(config))
    if '::' not in config and not os.path.isfile(base):
        raise FileNotFoundError(
            f'no config {config}: give a path, or a name like mmseg::FOLDER/FILE'
        )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            loaded = _load(f'_base_ = {base!r}\n', scratch)
        except RuntimeError as error:
            if 'lazy_import' not in str(error):
                raise
        else:
            return _Switch(config, base, loaded, folder).switched_on(class_prior)
        # A config of the new style. As a file of the usual style, others can build on it.
        whole = str(Path(scratch, 'whole.py'))
        Config.fromfile(base, import_custom_modules=False).dump(whole)
        loaded = _load(f'_base_ = {whole!r}\n', scratch)
        made = _Switch(config, whole, loaded, None).switched_on(class_prior)
        note = (
            f'{config} is of the new style (with read_base), on which no config of the usual style '
            'can build: the new file holds all of it'
        )
        return SwitchOn(_load(made.text, scratch).pretty_text, [note, *made.notes])


def _load(text: str, folder: str) -> Config:
    file = Path(folder, 'config.py')
    file.write_text(text, encoding='utf-8')
    # Looking at a config must not need all that training it needs, such as mmpretrain.
    return Config.fromfile(file, import_custom_modules=False)


class _Switch:
    """The making of one new config."""

    def __init__(self, config: str, base: str, loaded: Config, folder: str | Path | None) -> None:
        self.config = config
        self.base = base
        self.folder = folder
        self.loaded = loaded.to_dict()
        self.notes: list[str] = []
        self.missing: list[str] = []  # of the custom imports
        self.imports = self._import_modules()
        self.model = self.loaded.get('model') or {}

    def _import_modules(self) -> list[str]:
        """Import the config's custom modules, which may register heads; their names."""
        names = (self.loaded.get('custom_imports') or {}).get('imports') or []
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            try:
                import_module(name)
            except ImportError as error:
                self.missing.append(f'{name} ({error})')
        return names

    def switched_on(self, class_prior: str | None) -> SwitchOn:
        self._check_model()
        heads = self._heads('decode_head')
        predicting, _ = heads[-1]
        prior, num_classes = self._prior(class_prior, *heads[-1])
        changes = {
            place: self._of_loss(place, head, num_classes, place == predicting)
            for place, head in heads + self._heads('auxiliary_head')
        }
        self._add_contrast(changes)
        return SwitchOn(self._text(prior, changes), self.notes)

    # What the config has

    def _heads(self, role: str) -> list[tuple[str, dict]]:
        """(place, config) of each head, such as ``('decode_head[1]', {...})``."""
        heads = self.model.get(role)
        if isinstance(heads, (list, tuple)):
            return [(f'{role}[{i}]', head) for i, head in enumerate(heads)]
        return [(role, heads)] if heads else []

    def _check_model(self) -> None:
        heads = self._heads('decode_head')
        for place, head in heads + self._heads('auxiliary_head'):
            self._check_not_switched_on(place, head)
        for place, head in heads:
            bases = getattr(class_of(MODELS, head.get('type')), '__mro__', ())
            names = [unscoped_name(head), *(base.__name__ for base in bases)]
            reason = next((UNSUPPORTED_HEADS[n] for n in names if n in UNSUPPORTED_HEADS), None)
            if 'IterativeDecodeHead' in names:
                raise SwitchOnError(
                    f'{place}: {names[0]} has its classes and losses in kernel_generate_head: '
                    "switch it on by hand, with type='LTMIIterativeDecodeHead', contrast=dict() "
                    'and kernel_generate_head=dict(loss_decode=...), as docs/masks.md shows'
                )
            if reason is not None:
                raise SwitchOnError(f'{place}: {names[0]} has no LTMI form: {reason}')
        segmentor = class_of(MODELS, self.model.get('type'))
        if segmentor is None:
            raise SwitchOnError(
                self._unknown('model', self.model)
                if self.model
                else f'{self.config} has no model: give a config that trains one'
            )
        if not is_a(MODELS, segmentor, EncoderDecoder):
            raise SwitchOnError(
                f'model.type is {unscoped_name(self.model)}: LTMI heads are trained by '
                'EncoderDecoder, CascadeEncoderDecoder and their subclasses; use one of them'
            )
        if not heads:
            raise SwitchOnError(f'the model of {self.config} has no decode_head')

    def _check_not_switched_on(self, place: str, head: dict) -> None:
        found: list[tuple[str, dict, type]] = [(place, head, LTMIHeadMixin)]
        found += [(where, loss, LogitAdjustedLoss) for where, loss in _losses(place, head)]
        for where, part, kind in found:
            if is_a(MODELS, part.get('type'), kind):
                raise SwitchOnError(
                    f'{self.config} is switched on already: {where} is {unscoped_name(part)}. '
                    'Train it as it is, or switch on the config that it builds on'
                )

    def _prior(self, given: str | None, place: str, head: dict) -> tuple[str | None, int]:
        """How the new config names the class prior, None if it names none; and C."""
        num_classes: Any = head.get('num_classes')
        name = given if given is not None else self._train_prior()
        if _is_single_score(head):
            raise SwitchOnError(
                f'{place} gives a single score (num_classes={num_classes}, '
                f'out_channels={head.get("out_channels")}): logit adjustment and contrast need a '
                'score per class. Set num_classes=2 and use_sigmoid=False, without out_channels'
            )
        self._note_reading(place, head)
        if name is None:
            return None, num_classes
        prior = ClassPrior.load(name)
        if prior.num_classes != num_classes:
            raise SwitchOnError(
                f'{place} has num_classes={num_classes}, but the class prior {name} has '
                f'{prior.num_classes} classes: give the one of this data set as --class-prior'
            )
        # A published name stands over a file of the same name, as where it is read.
        is_file = given is not None and given not in PRIORS.values()
        if not is_file:
            return name, num_classes
        file = self._seen_from_folder(os.path.abspath(name))
        # mmengine puts the folder of the config there.
        return file if os.path.isabs(file) else f'{{{{ fileDirname }}}}/{file}', num_classes

    def _seen_from_folder(self, path: str) -> str:
        if self.folder is None or not Path(path).is_relative_to(os.path.abspath(self.folder)):
            return path
        return Path(path).relative_to(os.path.abspath(self.folder)).as_posix()

    def _train_set(self) -> dict:
        return (self.loaded.get('train_dataloader') or {}).get('dataset') or {}

    def _published_prior(self) -> str | None:
        """That of the labels as they are, if there is one."""
        names = {published_name(leaf) for leaf, _ in leaves(self._train_set())}
        return names.pop() if len(names) == 1 else None

    def _train_prior(self) -> str | None:
        by = resampling(self._train_set())
        name = None if by else self._published_prior()
        if by:
            self.notes.append(
                f'{by} resamples the classes of the train set: ClassPriorHook counts them behind '
                'the pipeline before the run. To name a counted prior instead, give the file of '
                'mmseg-ltmi count CONFIG --as-trained 2000 as --class-prior'
            )
        elif name is None:
            kinds = sorted({unscoped_name(leaf) for leaf, _ in leaves(self._train_set())})
            what = ', '.join(kinds) or 'a config without train set'
            self.notes.append(
                f'no class prior is published for {what}: ClassPriorHook counts the train set '
                'before the run. To name a counted one instead, give its file as --class-prior'
            )
        return name

    def _note_reading(self, place: str, head: dict) -> None:
        """Which images the scores are read for, where the train set is resampled."""
        if not resampling(self._train_set()):
            return
        if is_a(MODELS, f'LTMI{unscoped_name(head)}', LTMIMaskHeadMixin):
            remedy = 'choose a tau on such images with mmseg-ltmi choose'
        else:
            name = self._published_prior()
            prior = f'={name!r}' if name else ', the raw prior of mmseg-ltmi count CONFIG'
            remedy = f'give it test_prior{prior}'
        self.notes.append(
            f'{place} reads its scores for images whose classes are as frequent as in the '
            f'resampled train set. If the model is used on others, {remedy}'
        )

    # What becomes of a head

    def _of_loss(self, place: str, head: dict, num_classes: int, predicts: bool) -> HeadChanges:
        """The change of a head's losses; none where they have to stay."""
        if _is_single_score(head) or head.get('num_classes') != num_classes:
            what = f'num_classes={head.get("num_classes")}, not {num_classes}'
            if _is_single_score(head):
                what = 'a single score, where logit adjustment needs one per class'
            self.notes.append(f'{place} stays as it is: it has {what}')
            return HeadChanges()
        losses = _losses(place, head)
        if not losses:  # mmsegmentation's default is cross-entropy
            # In a list, where statements change a head, there is none to update.
            return HeadChanges(loss='ltmi_loss', merges='[' not in place)
        refusals = [_refusal(loss) for _, loss in losses]
        if predicts and None not in refusals:
            raise SwitchOnError(
                f'{place} has no loss that LTMILoss can replace: {"; ".join(map(str, refusals))}'
            )
        for (where, loss), refusal in zip(losses, refusals, strict=True):
            self._note_loss(where, loss, refusal)
            ignored, of_head = loss.get('ignore_label', 255), head.get('ignore_index', 255)
            if unscoped_name(loss) == 'OhemCrossEntropy' and ignored != of_head:
                self.notes.append(
                    f'{where} has ignore_label={ignored}, {place} ignore_index={of_head}: give '
                    f'{place} ignore_index={ignored}, which an LTMI head trains by'
                )
        if None not in refusals:
            return HeadChanges()
        changes = HeadChanges()
        if isinstance(head['loss_decode'], (list, tuple)):
            parts = [
                (None, ltmi_loss_node(loss) if refusal is None else f'_base_.model.{where}')
                for (where, loss), refusal in zip(losses, refusals, strict=True)
            ]
            changes.loss, changes.merges = ('[', parts, ']'), False
        else:
            changes.merges = set(losses[0][1]) <= MERGING
            changes.loss = 'ltmi_loss' if changes.merges else ltmi_loss_node(losses[0][1])
        return changes

    def _note_loss(self, where: str, loss: dict, refusal: str | None) -> None:
        if refusal is not None:
            self.notes.append(f'{where} stays as it is: {refusal}')
            return
        lost = []
        if unscoped_name(loss) == 'OhemCrossEntropy':
            lost.append('its choice of hard pixels')
        if loss.get('class_weight') is not None:
            lost.append('its class_weight (LTMILoss weighs the classes by the prior)')
        if loss.get('reduction', 'mean') != 'mean':
            lost.append(f'reduction={loss["reduction"]!r} (LTMILoss takes the mean)')
        if lost:
            self.notes.append(
                f'{where}: {unscoped_name(loss)} becomes LTMILoss and loses {" and ".join(lost)}'
            )

    def _add_contrast(self, changes: dict[str, HeadChanges]) -> None:
        """Give the predicting head its LTMI form, and the last one with a map the contrast."""
        heads = self._heads('decode_head')
        place, last = heads[-1]
        changes[place].type = self._ltmi_type(place, last)
        for where, head in reversed(heads):
            points = is_a(MODELS, head.get('type'), PointHead)
            if changes[where].loss is not None and not points:
                changes[where].type = self._ltmi_type(where, head)
                changes[where].contrast = True
                return
        self.notes.append(f'{place} gets no contrast: PointHead sees points and not a map')

    def _ltmi_type(self, place: str, head: dict) -> str:
        cls = class_of(MODELS, head.get('type'))
        if cls is None:
            raise SwitchOnError(self._unknown(place, head))
        name = f'LTMI{cls.__name__}'
        form = MODELS.get(name)
        if is_a(MODELS, form, LTMIHeadMixin) and is_a(MODELS, form, cls):
            return name
        if is_a(MODELS, cls, BaseDecodeHead):
            raise SwitchOnError(
                f'{place}: {cls.__name__} has no LTMI form. If it classifies with cls_seg, put '
                '@ltmi_head (from mmseg_ltmi.models.decode_heads) above its '
                '@MODELS.register_module(), and name its module in custom_imports'
            )
        raise SwitchOnError(
            f'{place}: {cls.__name__} has no LTMI form, as it is no BaseDecodeHead: use a '
            'per-pixel head such as LTMIUPerHead'
        )

    def _unknown(self, place: str, config: dict) -> str:
        missing = f'; could not import {", ".join(self.missing)}' if self.missing else ''
        return (
            f'{place}.type {config.get("type")!r} is not registered: name the module that '
            f'registers it in custom_imports, and see that Python finds it{missing}'
        )

    # The new file

    def _text(self, prior: str | None, changes: dict[str, HeadChanges]) -> str:
        base = self.base if '::' in self.base else self._seen_from_folder(self.base)
        lines = [f'_base_ = {base!r}']
        if PACKAGE not in self.imports:
            lines.append(f'custom_imports = dict(imports={[PACKAGE, *self.imports]!r})')
        if prior is None:
            lines.append('# No prior is named: ClassPriorHook counts the train set before the run.')
            lines.append("ltmi_loss = dict(type='LTMILoss')")
        else:
            lines.append(f"ltmi_loss = dict(type='LTMILoss', class_prior={prior!r})")
        model: list[tuple[str | None, Any]] = []
        for role in ('decode_head', 'auxiliary_head'):
            heads = {p: changes[p] for p, _ in self._heads(role) if changes[p]}
            if heads and isinstance(self.model[role], (list, tuple)):
                if not any(line.startswith('# A list') for line in lines):
                    lines.append(
                        "# A list replaces the base's list, so the heads are taken from it and "
                        'changed here.'
                    )
                lines.append(f'{role} = _base_.model.{role}')
                for place, change in heads.items():
                    lines += head_statements(place, change)
                model.append((role, role))
            elif heads:
                model.append((role, head_node(heads[role])))
        lines.append(lay_out(('dict(', model, ')'), 'model = '))
        hooks = self.loaded.get('custom_hooks') or []
        if prior is None and 'ClassPriorHook' not in [unscoped_name(hook) for hook in hooks]:
            before = '*_base_.custom_hooks, ' if hooks else ''
            lines.append(f"custom_hooks = [{before}dict(type='ClassPriorHook')]")
        return '\n'.join(lines) + '\n'


def _losses(place: str, head: dict) -> list[tuple[str, dict]]:
    """(place, config) of each loss of a head."""
    losses = head.get('loss_decode')
    if isinstance(losses, (list, tuple)):
        return [(f'{place}.loss_decode[{i}]', loss) for i, loss in enumerate(losses)]
    return [(f'{place}.loss_decode', losses)] if losses else []


def _refusal(loss: dict) -> str | None:
    """Why a loss cannot become LTMILoss; None if it can."""
    name = unscoped_name(loss)
    if name not in CROSS_ENTROPIES:
        return f'{name} is no cross-entropy, to whose scores a class prior could be added'
    if loss.get('use_sigmoid') or loss.get('use_mask'):
        key = 'use_sigmoid' if loss.get('use_sigmoid') else 'use_mask'
        return (
            f'{name} with {key}=True judges each class by itself, and logit adjustment is of a '
            f'softmax over the classes. If the head may be trained with a softmax, set {key}=False '
            'in a config that builds on the given one, and switch that on'
        )
    return None


def _is_single_score(head: dict) -> bool:
    return head.get('out_channels') == 1 or head.get('num_classes') == 1
