"""Reads configs, and changes them as the options of the commands say.

A ``type`` may be a name, a name with a scope ('mmseg.FCNHead') or, in a config of pure Python, the
class itself. What is set here has its scope with it, so that any default scope finds it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.registry import Registry, init_default_scope
from mmseg.evaluation import CityscapesMetric, IoUMetric
from mmseg.models import SegTTAModel
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import METRICS, MODELS, TRANSFORMS

from mmseg_ltmi.evaluation import LogitAdjustmentSweep, LongTailIoUMetric
from mmseg_ltmi.models.decode_heads import LTMIHeadMixin
from mmseg_ltmi.models.segmentors import ScoreReadingMixin
from mmseg_ltmi.package_configs import config_path

READING_FORMS: dict[Any, str] = {
    EncoderDecoder: 'mmseg.LTMIEncoderDecoder',
    CascadeEncoderDecoder: 'mmseg.LTMICascadeEncoderDecoder',
    SegTTAModel: 'mmseg.LTMISegTTAModel',
}
"""What reads scores at an operating point in the place of each of mmsegmentation's own."""


def read_config(config: str | Path | Config, options: Mapping[str, Any] | None = None) -> Config:
    """A config, whose types can be looked up from now on.

    Args:
        config: a file of any format that mmengine reads (.py, .json, .yaml), one of an installed
            package, such as 'mmseg_ltmi::demo/ce_fcn-r18_400_shapes-128x128.py', or a Config, which
            stays as it is.
        options: values by dotted key, such as ``{'train_cfg.max_iters': 100}``.

    Raises:
        OSError: no such file, or a format that mmengine does not read.
        ImportError: a module of the config's custom_imports.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    else:
        try:
            cfg = Config.fromfile(config_path(config))
        except ImportError as error:
            # mmengine shows all of sys.path; the first error of the chain says what is missing.
            first: BaseException = error
            while (earlier := first.__cause__ or first.__context__) is not None:
                first = earlier
            raise ImportError(f'{config} imports what cannot be imported: {first}') from error
    cfg.merge_from_dict(dict(options or {}))
    if cfg.get('data_preprocessor') and cfg.get('model'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as mmengine's Runner
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    return cfg


def set_work_dir(cfg: Config, work_dir: str | Path | None) -> None:
    """That of the argument, else the config's own, else one that is named after the file."""
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(cfg.filename or 'run').stem))


def class_of(registry: Registry, kind: Any) -> Any:
    """The class that a config's ``type`` stands for; None where nobody knows the name."""
    return registry.get(kind) if isinstance(kind, str) else kind


def name_of(kind: Any) -> str:
    """A config's ``type`` as a text."""
    return kind if isinstance(kind, str) else getattr(kind, '__name__', repr(kind))


def unscoped_name(config: Any) -> str:
    """The name of the class that a config names, without scope and module; '' if it names none."""
    kind = config.get('type', '') if isinstance(config, Mapping) else ''
    return name_of(kind).rpartition('.')[2]


def is_a(registry: Registry, kind: Any, base: type) -> bool:
    """Whether a config's ``type`` stands for a class, or one that is derived from it."""
    found = class_of(registry, kind)
    return isinstance(found, type) and issubclass(found, base)


def with_operating_point(model: Mapping[str, Any]) -> Any:
    """A copy of a model's config whose segmentor takes an operating point.

    Raises:
        ValueError: a segmentor that takes none.
    """
    model = copy.deepcopy(model)
    _read_scores(model)
    if not is_a(MODELS, model['type'], ScoreReadingMixin):
        raise ValueError(
            f'{name_of(model["type"])} takes no operating point: use LTMIEncoderDecoder or '
            'LTMICascadeEncoderDecoder, or derive it from ScoreReadingMixin'
        )
    return model


def _read_scores(model: Any) -> None:
    kind = class_of(MODELS, model['type'])
    if kind in READING_FORMS:
        model['type'] = READING_FORMS[kind]


def set_reading(
    cfg: Config, tau_test: float | None = None, operating_point: str | Path | None = None
) -> None:
    """Let a config's model, and its test-time augmentation, read scores at an operating point.

    mmsegmentation's own become those that do, without the two arguments as well: a checkpoint may
    carry an operating point. ``tau_test`` stands in the place of one.

    Raises:
        ValueError: ``tau_test`` and the config's last head is no LTMI head, or ``operating_point``
            and a segmentor that takes none.
    """
    _read_scores(cfg.model)
    if cfg.get('tta_model') is not None:
        _read_scores(cfg.tta_model)
    if operating_point is not None:
        cfg.model = with_operating_point(cfg.model)
        cfg.model['operating_point'] = str(Path(operating_point).resolve())
    if tau_test is None:
        return
    heads = cfg.model.get('decode_head') or {}
    head = heads[-1] if isinstance(heads, (list, tuple)) else heads
    if not is_a(MODELS, head.get('type'), LTMIHeadMixin):
        name = name_of(head.get('type', 'no decode_head')).split('.')[-1]
        raise ValueError(
            f'--tau-test needs an LTMI head, but the config has {name}: make it '
            f"'LTMI{name}' with class_prior=..., or evaluate with LogitAdjustmentSweep"
        )
    head['tau_test'] = tau_test
    if operating_point is None and is_a(MODELS, cfg.model['type'], ScoreReadingMixin):
        cfg.model['operating_point'] = False  # neither the config's nor the checkpoint's


def set_per_class_file(cfg: Config, file: str | Path) -> None:
    """Let a config's IoU metric write a row per class to a .json or .csv file.

    Raises:
        ValueError: the config has neither an IoUMetric nor a LongTailIoUMetric.
    """
    for metric in _test_metrics(cfg):
        kind = class_of(METRICS, metric.get('type'))
        if kind is IoUMetric:
            metric['type'] = 'mmseg.LongTailIoUMetric'
        elif not is_a(METRICS, metric.get('type'), LongTailIoUMetric):
            continue
        metric['per_class_file'] = str(Path(file).resolve())
        return
    raise ValueError(
        '--per-class needs an IoUMetric or LongTailIoUMetric in test_evaluator, but it has '
        f'{[name_of(metric.get("type")) for metric in _test_metrics(cfg)]}'
    )


def set_prediction_folder(cfg: Config, folder: str | Path) -> None:
    """Let a config's metric write the predicted label maps to a folder.

    It is the first IoUMetric, else the first CityscapesMetric, else the first that is no sweep.
    Where the test split has no labels, the metric does nothing else, and the others are left out.

    Raises:
        ValueError: the config has no such metric, or one that cannot do without labels.
    """
    metrics = [
        metric
        for metric in _test_metrics(cfg)
        if not is_a(METRICS, metric.get('type'), LogitAdjustmentSweep)
    ]
    if not metrics:
        raise ValueError(
            '--out needs a metric that writes the label maps: put '
            "dict(type='LongTailIoUMetric', iou_metrics=['mIoU']) into test_evaluator"
        )

    without = (IoUMetric, CityscapesMetric)  # labels
    found = [m for kind in without for m in metrics if is_a(METRICS, m.get('type'), kind)]
    metric = (found or metrics)[0]
    if class_of(METRICS, metric.get('type')) is IoUMetric:  # whose maps have 8 bits
        metric.update(type='mmseg.LongTailIoUMetric', per_class_file=None)
    metric.update(output_dir=str(folder), keep_results=True)
    if not has_labels(cfg.test_dataloader.dataset):
        if not found:
            raise ValueError(
                f'the test split has no labels, and {name_of(metric.get("type"))} is not known to '
                "do without: put dict(type='LongTailIoUMetric', iou_metrics=['mIoU']) into "
                'test_evaluator'
            )
        metric['format_only'] = True
        cfg.test_evaluator = metric
        for part in unwrapped_configs(cfg.test_dataloader.dataset):
            part['pipeline'] = _without_labels(part.get('pipeline') or [])
        if cfg.get('tta_pipeline') is not None:
            cfg.tta_pipeline = _without_labels(cfg.tta_pipeline)


def has_labels(dataset: Any) -> bool:
    """Whether the config of a data set, or its class, says where labels are, and loads them."""

    def has(part: Any) -> bool:
        folders = part.get('data_prefix')
        steps = part.get('pipeline') or []
        is_there = folders is None or folders.get('seg_map_path') is not None
        return is_there and len(_without_labels(steps)) < len(steps)

    return any(map(has, unwrapped_configs(dataset)))


def _without_labels(pipeline: Any) -> list[Any]:
    # TestTimeAug has a list of alternatives in each place.
    steps: list[Any] = []
    for step in pipeline:
        if isinstance(step, (list, tuple)):
            steps += [left] if (left := _without_labels(step)) else []
        elif not is_a(TRANSFORMS, step.get('type'), LoadAnnotations):
            inner = step.get('transforms')
            steps.append(step if inner is None else {**step, 'transforms': _without_labels(inner)})
    return steps


def _test_metrics(cfg: Config) -> list[Any]:
    found = cfg.get('test_evaluator') or []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def set_visualization(
    cfg: Config, show: bool = False, show_dir: str | Path | None = None, wait_time: float = 2
) -> None:
    """Let a config draw predictions over the images, in a window or to a folder.

    All are drawn, unless the config's ``default_hooks.visualization`` has an ``interval``.
    """
    hooks = cfg.get('default_hooks') or {}
    hook = hooks.get('visualization') or dict(type='mmseg.SegVisualizationHook')
    # The hook's own interval would be 50.
    hook = {'interval': 1, **hook, 'draw': True}
    if show:
        hook.update(show=True, wait_time=wait_time)
    cfg.default_hooks = {**hooks, 'visualization': hook}
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type='mmseg.SegLocalVisualizer', name='visualizer')
    if show_dir is not None:
        cfg.visualizer['save_dir'] = str(show_dir)
        if not cfg.visualizer.get('vis_backends'):
            cfg.visualizer['vis_backends'] = [dict(type='mmengine.LocalVisBackend')]


def set_test_time_augmentation(cfg: Config) -> None:
    """Test on several views of each image, as the config's ``tta_model`` and pipeline say.

    Raises:
        ValueError: the config has none.
    """
    missing = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
    if missing:
        raise ValueError(f'--tta needs {" and ".join(missing)} in the config')
    for dataset in unwrapped_configs(cfg.test_dataloader.dataset):
        dataset['pipeline'] = cfg.tta_pipeline
    cfg.tta_model['module'] = cfg.model
    cfg.model = cfg.tta_model


def set_mixed_precision(cfg: Config) -> None:
    """Train with automatic mixed precision.

    Raises:
        ValueError: the config has an optimizer wrapper of its own kind.
    """
    from mmengine.optim import AmpOptimWrapper, OptimWrapper
    from mmseg.registry import OPTIM_WRAPPERS

    wrapper = cfg.optim_wrapper
    kind = class_of(OPTIM_WRAPPERS, wrapper.get('type', 'OptimWrapper'))
    if kind is AmpOptimWrapper:
        return
    if kind is not OptimWrapper:
        raise ValueError(
            f'--amp replaces an OptimWrapper, but the config has {name_of(wrapper.type)}: set its '
            'precision in the config'
        )
    wrapper.update(type='mmengine.AmpOptimWrapper', loss_scale='dynamic')


def set_cpu_processes(cfg: Config) -> None:
    """Let several processes without a GPU train or test together.

    By itself mmengine names a GPU to the model's wrapper. SyncBN needs a GPU as well.
    """
    cfg.setdefault('runner_type', 'mmengine.CPURunner')
    own = cfg.get('model_wrapper_cfg') or {}
    cfg.model_wrapper_cfg = {
        'type': 'mmengine.MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **own,
        'device_ids': None,
    }


def unwrapped_configs(dataset: Any) -> Iterator[Any]:
    """The configs of the data sets inside wrappers (ConcatDataset, RepeatDataset, ...)."""
    if dataset.get('datasets') is not None:
        for part in dataset['datasets']:
            yield from unwrapped_configs(part)
    elif dataset.get('dataset') is not None:
        yield from unwrapped_configs(dataset['dataset'])
    else:
        yield dataset
