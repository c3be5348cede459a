"""Pictures of the rare classes, and of the contrast's queue, for TensorBoard and its like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from PIL import Image
from torch import Tensor, nn

from mmseg_ltmi.core.class_names import distinct_names, one_line
from mmseg_ltmi.core.contrast import PixelContrast
from mmseg_ltmi.core.priors import ClassPrior, build_class_prior
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.models.segmentors import last_head
from mmseg_ltmi.prior_message import announced_prior
from mmseg_ltmi.visualization import draw_tail_page, plot_embeddings, plot_queue_use

from .rare_images import RareImages


@HOOKS.register_module()
class LongTailVisualizationHook(Hook):
    """Log pictures at every validation, through the run's visualizer and all its backends.

    ``rare_classes``: image, label and prediction of the images that hold most of the rarest
    classes, these in colour and the rest in grey. On request ``queue_use``, how many keys the
    contrast's queue holds of each class and how many it has room for, and ``queue_embeddings``,
    the keys and the queries of the last training step on their two principal axes (not together
    with ``compile=True``, which may not see what is noted of a step).

    Rank 0 alone draws, of the images that it validates; nothing is sent between ranks. Neither
    weights nor random numbers change.

    Args:
        num_images: at most.
        classes: names of the classes to look for, the rarest first; None takes the tail.
        class_prior: as for LogitAdjustedLoss, ranks the classes; None takes that of the LTMI head
            that predicts. A stock head has none: name one, or ``classes``; otherwise a warning
            says that nothing is drawn.
        queue_histogram: draw ``queue_use``.
        embeddings: draw ``queue_embeddings``.
        num_points: keys, and as many queries, that it shows at most.
        interval: draw at every so many validations.
        max_side: longer images are made smaller, in pixels.

    Raises:
        ValueError: a number below 1; in the validation, unknown classes, or a class prior of
            another number of classes.
    """

    priority = 'LOW'

    def __init__(
        self,
        num_images: int = 4,
        classes: Sequence[str] | None = None,
        class_prior: Any = None,
        queue_histogram: bool = False,
        embeddings: bool = False,
        num_points: int = 2000,
        interval: int = 1,
        max_side: int = 512,
    ) -> None:
        numbers = dict(
            num_images=num_images, num_points=num_points, interval=interval, max_side=max_side
        )
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f'LongTailVisualizationHook.{name} is {value}: give 1 or more')
        self.num_images = num_images
        self.classes = classes
        self.class_prior = class_prior
        self.queue_histogram = queue_histogram
        self.embeddings = embeddings
        self.num_points = num_points
        self.interval = interval
        self.max_side = max_side
        self._validations = 0
        self._images: RareImages | None = None
        self._warned: set[str] = set()
        self._queries: dict[nn.Module, dict[str, Any]] = {}
        self._handles: list[Any] = []

    # The queries of each training step

    def before_train(self, runner: Runner) -> None:
        """Watch the queries, if they are to be drawn."""
        if not (self.embeddings and is_main_process()):
            return
        for contrast in self._contrasts(runner).values():
            seen = self._queries[contrast] = {}
            for name in ('sampler', 'projector'):
                module = getattr(contrast, name)
                if isinstance(module, nn.Module):  # a sampler of the user's may be none
                    note = partial(_note, seen, name)
                    self._handles.append(module.register_forward_hook(note))

    def after_train(self, runner: Runner) -> None:
        """Let go of them."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._queries.clear()

    # Images

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the images of the last validation."""
        self._images = None

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Keep the images that hold most of the rare classes."""
        if not self._draws_now():
            return
        if self._images is None:
            prior = self._prior(runner)
            if prior is None:
                return
            rare = self._wanted(prior, self._names(runner, prior))
            index = last_head(_unwrapped(runner)).ignore_index
            self._images = RareImages(rare, self.num_images, self.max_side, index)
        for image, sample in zip(data_batch['inputs'], outputs or (), strict=False):
            if 'gt_sem_seg' in sample:
                self._images.add(image, sample)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Draw."""
        draws = self._draws_now()
        self._validations += 1
        if not draws:
            return
        prior = self._prior(runner)
        if prior is None:
            return
        names = self._names(runner, prior)
        images = self._images.best() if self._images is not None else []
        if self._images is not None and images:
            index = last_head(_unwrapped(runner)).ignore_index
            page = partial(draw_tail_page, images, self._images.rare, names, ignore_index=index)
            _log(runner, 'rare_classes', page)
        else:
            self._warn(runner, 'no image that rank 0 validates has a label of the rare classes')
        self._images = None
        if self.queue_histogram or self.embeddings:
            for suffix, contrast in self._contrasts(runner).items():
                self._draw_queue(runner, suffix, contrast, prior, names)

    def _draws_now(self) -> bool:
        return is_main_process() and self._validations % self.interval == 0

    # The queue

    @torch.no_grad()
    def _draw_queue(
        self,
        runner: Runner,
        suffix: str,
        contrast: PixelContrast,
        prior: ClassPrior,
        names: list[str],
    ) -> None:
        samples, labels, _ = contrast.queue.read()
        filled = labels >= 0
        if self.queue_histogram:
            use = labels[filled].bincount(minlength=prior.num_classes).tolist()
            room = getattr(contrast.queue, 'room', None)
            slots = room.tolist() if isinstance(room, Tensor) else None
            _log(runner, f'queue_use{suffix}', partial(plot_queue_use, use, slots, prior, names))
        if not self.embeddings:
            return
        keys, key_labels = self._some(samples[filled], labels[filled])
        if contrast.takes_teacher:
            keys = contrast.key_projector(keys)
        queries, query_labels = keys[:0], key_labels[:0]
        seen = self._queries.get(contrast, {})
        if 'projector' in seen and 'sampler' in seen:  # a step has been trained
            known = seen['sampler'].labels >= 0
            queries, query_labels = self._some(
                seen['projector'][known], seen['sampler'].labels[known]
            )
        on_cpu = keys.cpu(), key_labels.cpu(), queries.cpu(), query_labels.cpu()
        if len(keys) + len(queries) < 3:
            self._warn(runner, 'too few keys and queries for a view of them')
            return
        _log(runner, f'queue_embeddings{suffix}', partial(plot_embeddings, *on_cpu, prior, names))

    def _some(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # Evenly through the queue, whose slots are sorted by class.
        step = -(-len(points) // self.num_points) or 1
        return points[::step], labels[::step]

    def _contrasts(self, runner: Runner) -> dict[str, PixelContrast]:
        """The contrastive terms by what their pictures' names end in."""
        found = {
            name: module
            for name, module in _unwrapped(runner).named_modules()
            if isinstance(module, PixelContrast)
        }
        if not found:
            self._warn(runner, 'the model has no contrast, so there is no queue to draw')
        if len(found) == 1:
            return {'': next(iter(found.values()))}
        return {f'_{name.replace(".", "_")}': module for name, module in found.items()}

    # Classes

    def _prior(self, runner: Runner) -> ClassPrior | None:
        number = last_head(_unwrapped(runner)).num_classes
        if self.class_prior is not None:
            where = 'LongTailVisualizationHook.class_prior'
            return build_class_prior(self.class_prior, number, where)
        prior = announced_prior(number)
        if prior is None and self.classes is not None:
            return ClassPrior([1] * number)  # the user has said what is rare
        if prior is None:
            self._warn(
                runner,
                'no class prior is known, which says what is rare (a stock head has none): give '
                "the hook class_prior= (a name such as 'ade20k', a path or counts), or classes=",
            )
        return prior

    def _names(self, runner: Runner, prior: ClassPrior) -> list[str]:
        names = list(metainfo_of(runner.val_dataloader.dataset).get('classes') or ())
        return distinct_names(names if len(names) == prior.num_classes else prior.names)

    def _wanted(self, prior: ClassPrior, names: list[str]) -> list[int]:
        if self.classes is None:
            groups = prior.groups()
            return list(reversed(groups.tail or groups.head))
        wanted = [one_line(name) for name in self.classes]
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ValueError(
                f'LongTailVisualizationHook.classes has unknown names {unknown}: the data set has '
                f'{names}'
            )
        return [names.index(name) for name in wanted]

    def _warn(self, runner: Runner, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            runner.logger.warning(f'LongTailVisualizationHook: {text}')


def _unwrapped(runner: Runner) -> Any:
    model: Any = runner.model
    return model.module if is_model_wrapper(model) else model


def _note(seen: dict[str, Any], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    seen[name] = output.detach() if isinstance(output, Tensor) else output


def _log(runner: Runner, name: str, draw: Any) -> None:
    file = io.BytesIO()
    draw(path=file)
    runner.visualizer.add_image(name, np.asarray(Image.open(file).convert('RGB')), step=runner.iter)
