"""Trains and tests what a config describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner, find_latest_checkpoint
from mmseg.evaluation import IoUMetric
from mmseg.models import BaseSegmentor
from mmseg.registry import RUNNERS
from torch.nn.parallel import DistributedDataParallel

from mmseg_ltmi.engine import cpu_runner  # noqa: F401  registers it
from mmseg_ltmi.models.checkpoint_file import read_checkpoint, read_file
from mmseg_ltmi.models.segmentors import last_head

from .config_changes import (
    has_labels,
    read_config,
    set_cpu_processes,
    set_mixed_precision,
    set_per_class_file,
    set_prediction_folder,
    set_reading,
    set_test_time_augmentation,
    set_visualization,
    set_work_dir,
)
from .empty_split import naming_empty_split
from .split_data import check_labels
from .trained_model import check_fits


def train(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    resume: bool = False,
    amp: bool = False,
    options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
) -> Runner:
    """Train what a config describes; the runner, with the trained model.

    Args:
        config: a file, or a Config, which stays as it is.
        work_dir: folder of logs and checkpoints; None takes the config's, or one that is named
            after the file.
        resume: go on from the newest checkpoint in the work dir, also where the config has a
            ``load_from``; that is where training begins while there is none. A ``load_from`` in
            ``options``, or one beside the config's own ``resume=True``, is resumed itself.
        amp: train with automatic mixed precision.
        options: values of the config by dotted key.
        launcher: what started the processes: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        OSError: a file that is not there.
        ValueError: what the config does not fit, a checkpoint that cannot be read.
    """
    cfg = read_config(config, options)
    set_work_dir(cfg, work_dir)
    if resume and not cfg.get('resume'):
        cfg.resume = True
        if cfg.get('load_from') and 'load_from' not in (options or {}):
            # mmengine would resume from there.
            if find_latest_checkpoint(cfg.work_dir):
                cfg.load_from = None
            else:
                cfg.resume = False
    if amp:
        if get_device() == 'cpu':
            raise ValueError('--amp needs a GPU')
        set_mixed_precision(cfg)
    _check_readable(cfg)
    runner = _build_runner(cfg, launcher)
    for split in ('train', 'val'):
        if cfg.get(f'{split}_dataloader') is not None:
            with naming_empty_split(split, cfg[f'{split}_dataloader'].dataset) as check_length:
                check_length(getattr(runner, f'{split}_loop').dataloader.dataset)
    runner.train()
    return runner


def test(
    config: str | Path | Config,
    checkpoint: str | Path,
    work_dir: str | Path | None = None,
    tau_test: float | None = None,
    operating_point: str | Path | None = None,
    per_class: str | Path | None = None,
    out: str | Path | None = None,
    show: bool = False,
    show_dir: str | Path | None = None,
    wait_time: float = 2,
    tta: bool = False,
    options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
) -> dict[str, float]:
    """Test a trained model on the config's test split; its metrics.

    Args:
        config: a file, or a Config, which stays as it is.
        checkpoint: file with the weights.
        work_dir: folder of the log, as in :func:`train`.
        tau_test: how scores are read, 0 natural and 1 balanced; None leaves it to the config.
        operating_point: file of :func:`mmseg_ltmi.apis.choose`.
        per_class: .json or .csv file for a row per class.
        out: folder for the predicted label maps. A test split without labels (no
            ``data_prefix.seg_map_path``) is predicted and not judged.
        show: show predictions in a window.
        show_dir: folder for images of them.
        wait_time: seconds that each one is shown.
        tta: test on several views of each image.
        options: values of the config by dotted key.
        launcher: as in :func:`train`.

    Raises:
        OSError: a file that is not there.
        ValueError: what the config does not fit, a file that is no checkpoint or one of another
            model or of other classes than the test split's, or a test split without labels.
    """
    cfg = read_config(config, options)
    _check_test_parts(cfg)
    set_work_dir(cfg, work_dir)
    _, state = read_checkpoint(checkpoint)
    cfg.load_from = str(checkpoint)
    cfg.resume = False
    own_type = cfg.model['type']
    set_reading(cfg, tau_test, operating_point)
    is_switched = cfg.model['type'] != own_type
    judges = has_labels(cfg.test_dataloader.dataset)
    if per_class is not None:
        if not judges:
            raise ValueError(
                'the test split has no labels (data_prefix.seg_map_path), which --per-class needs'
            )
        set_per_class_file(cfg, per_class)
    if out is not None:
        set_prediction_folder(cfg, out)
    if show or show_dir is not None:
        set_visualization(cfg, show, show_dir, wait_time)
    if tta:
        set_test_time_augmentation(cfg)
    runner = _build_runner(cfg, launcher)
    if out is not None and not judges:
        runner.logger.info(f'the test split has no labels: it is predicted, into {out}')
    model = runner.model
    while isinstance(model, (DistributedDataParallel, BaseTTAModel)):
        model = model.module
    if isinstance(model, BaseSegmentor):  # whole: neither sharded nor still to be built
        check_fits(model, state, checkpoint)
    del state
    with naming_empty_split('test', cfg.test_dataloader.dataset) as check_length:
        loop: Any = runner.test_loop
        check_length(loop.dataloader.dataset)
    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', [])
    if any(isinstance(metric, IoUMetric) and not metric.format_only for metric in metrics):
        check_labels(loop.dataloader.dataset, 'test')
    values = runner.test()
    if is_switched:
        _say_how_read(runner, model)
    return values


def _check_test_parts(cfg: Config) -> None:
    parts = ('test_dataloader', 'test_cfg', 'test_evaluator')
    missing = [key for key in parts if cfg.get(key) is None]
    if missing:
        raise ValueError(
            f'the config has no {" and no ".join(missing)}, which testing needs: see a config of '
            "mmsegmentation, such as test_cfg = dict(type='TestLoop') and "
            "test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])"
        )


def _say_how_read(runner: Runner, model: Any) -> None:
    # Of a stock head. What its loss states is known once the checkpoint is loaded.
    reader = getattr(model, 'score_reader', None)
    if reader is not None and bool(reader.natural_shift.nan_to_num().any()):
        runner.logger.warning(
            'the scores were read as the natural posterior, with the shift that the loss of '
            f'{type(last_head(model)).__name__} (class weights, prior) or the checkpoint states. '
            "mmsegmentation's own test shows the raw scores, and so does validation in training: "
            'for those figures run its tools/test.py (mmseg-ltmi run tools/test.py CONFIG '
            f"CHECKPOINT). With model.type='{type(model).__name__}' both read them as here"
        )


def _check_readable(cfg: Config) -> None:
    # What training begins with: a run that was killed may have left half a checkpoint.
    start = cfg.get('load_from')
    if start is None and cfg.get('resume'):
        start = find_latest_checkpoint(cfg.work_dir)
    if start is not None:
        read_file(start)


def join_processes(launcher: str) -> None:
    """Join the process group of a launcher, unless that is done or it is 'none'."""
    if launcher == 'none' or torch.distributed.is_initialized():
        return
    if launcher == 'pytorch' and not torch.cuda.is_available():
        torch.distributed.init_process_group('gloo')  # mmengine would join by nccl
    else:
        init_dist(launcher)


def _build_runner(cfg: Config, launcher: str) -> Runner:
    cfg.launcher = launcher
    # In mmsegmentation's scope it comes by itself.
    own = {'runtime_info': dict(type='mmseg.RuntimeInfoHook')}
    cfg.default_hooks = {**own, **(cfg.get('default_hooks') or {})}
    if launcher == 'pytorch' and not torch.cuda.is_available():
        join_processes(launcher)
        set_cpu_processes(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
