"""What ``gpu.py`` finds out: generators of names and values, so that what is known stays known."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import evaluation
import gml
import pytest
import torch
import train_step
from measuring import launches, seconds
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.apis.runs import train
from mmseg_ltmi.core import GMLLoss
from mmseg_ltmi.core.losses.class_mixture import class_mixture, takes_kernels

SIZES = ('512,4096,19,128', '2048,8192,150,128', '8192,65536,150,256')
TOY = ('16,64,4,8',)
ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs/demo/ltmi_fcn-r18_400_shapes-128x128.py'
STEPS = (
    ROOT / 'configs/ade20k/ltmi_upernet_r50_4xb4-160k_ade20k-512x512.py',
    ROOT / 'configs/ade20k/ltmi_segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
)
Found = Iterator[tuple[str, Any]]


class Task(NamedTuple):
    """What a part is told."""

    device: str
    quick: bool
    out: Path

    @property
    def on_cpu(self) -> bool:
        return self.device == 'cpu'


class LeftOut(Exception):
    """What a part would need is not here."""


def environment(task: Task) -> Found:
    """Versions and the device."""
    yield 'python', platform.python_version()
    for name in ('torch', 'triton', 'mmengine', 'mmcv-lite', 'mmcv', 'mmsegmentation', 'numpy'):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if task.on_cpu:
        yield 'device', platform.machine()
        return
    device = torch.cuda.get_device_properties(0)
    yield 'device', device.name
    yield 'capability', f'{device.major}.{device.minor}'
    yield 'GiB', round(device.total_memory / 2**30, 1)
    yield 'multiprocessors', device.multi_processor_count
    yield 'CUDA', torch.version.cuda


def kernels(task: Task) -> Found:
    """Largest errors of the Triton kernels' values and gradients against torch in float64."""
    _need_triton()
    limits = dict(interpret=1e-3) if task.on_cpu else dict(tf32x3=1e-3, tf32=0.03, bf16=0.2)
    beyond = []
    for text in TOY if task.on_cpu else (*SIZES[:2], '999,7001,33,200'):
        size = gml.parse_size(text)
        query, _, ids, key, labels, key_ids, _ = gml.make_inputs(size, True)
        labels[:5] = -1
        os.environ['LTMI_TRITON'] = '0'
        exact = _mixture(query.double(), key.double(), labels, ids, key_ids, num_classes=size['C'])
        for switch, limit in limits.items():
            os.environ['LTMI_TRITON'] = switch
            q, k, *names = (x.to(task.device) for x in (query, key, labels, ids, key_ids))
            if not takes_kernels(q, k, size['C']):
                raise RuntimeError('this device does not take the kernels')
            ours = _mixture(q, k, *names, num_classes=size['C'])
            if not takes_kernels(q, k, size['C']):
                raise RuntimeError('the kernels could not be used: the log has the warning')
            errors = {
                name: float((a.cpu().double() - exact[name]).abs().max())
                for name, a in ours.items()
            }
            yield f'{text}, {switch}', errors
            if not max(errors.values()) < limit:  # also a NaN
                beyond.append(f'{text}, {switch}')
    if beyond:
        raise RuntimeError(f'the kernels differ from torch at {beyond}: set LTMI_TRITON=0')


def _need_triton() -> None:
    if importlib.util.find_spec('triton') is None:
        raise LeftOut('triton is not installed')


def _mixture(
    query: Tensor, key: Tensor, labels: Tensor, ids: Tensor, key_ids: Tensor, *, num_classes: int
) -> dict[str, Tensor]:
    """Values and gradients; zero where there is no key."""
    query, key = query.detach().requires_grad_(), key.detach().requires_grad_()
    result = class_mixture(query / 0.1, key, labels, num_classes, query_ids=ids, key_ids=key_ids)
    weight = torch.linspace(-1, 1, num_classes, device=query.device, dtype=query.dtype)
    values = {name: x.masked_fill(x == -torch.inf, 0) for name, x in result._asdict().items()}
    both = values['everything'] + 2 * values['held_out']
    (both * weight).sum(1).mean().backward()
    assert query.grad is not None and key.grad is not None
    return {**values, 'by query': query.grad, 'by key': key.grad}


def tests(task: Task) -> Found:
    """The tests of the GPU, the kernels' and a memory's in half precision."""
    paths = ['tests/test_models/test_gpu.py']
    if not task.quick:
        paths.append('tests/test_core/test_losses/test_class_mixture_kernels.py')
        memory = 'tests/test_core/test_posterior/test_class_memory.py'
        paths.append(f'{memory}::test_half_precision_features_and_autocast')
    chosen = ['-k', 'test_gradients or test_queue'] if task.quick else []
    reports = _Reports()
    code = pytest.main(['-q', '-p', 'no:cacheprovider', *chosen, *paths], plugins=[reports])
    yield from reports.counts.items()
    yield 'failures', reports.failures
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f'pytest ended with {code!r}')


class _Reports:
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.failures: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == 'call' or report.outcome != 'passed':
            self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
        if report.failed:
            self.failures.append(report.nodeid)


def contrast(task: Task) -> Found:
    """The contrastive term by size, as times of its two products, all in TF32."""
    torch.set_float32_matmul_precision('high')
    for text in TOY if task.quick else SIZES:
        rounds = 2 if task.quick else 15
        size = gml.parse_size(text)
        yield text, gml.measure(size, rounds, task.device, memory=not task.on_cpu)


def steps(task: Task) -> Found:
    """Whole training steps, interleaved, and what is launched in one."""
    for path in (DEMO,) if task.quick else STEPS:
        for batch in (2,) if task.quick else (4, 16):
            args = _sizes(task, batch)
            if task.on_cpu:  # without the memory, which takes a process for each form
                once = train_step.step(*train_step.prepare(str(path), 'LTMI', args))
                figures = {'LTMI': {'seconds': once}}
            else:
                figures = train_step.measure(str(path), args)
            for form in figures:
                run = train_step.prepare(str(path), form, args)
                number = launches(lambda r=run: train_step.step(*r), task.device)  # type: ignore[misc]
                figures[form]['launches'] = number
            yield f'{path.stem}, batch {batch}', figures


def _sizes(task: Task, batch: int) -> argparse.Namespace:
    size, rounds = (32, 1) if task.quick else (512, 11)
    return argparse.Namespace(
        device=task.device, batch=batch, size=size, rounds=rounds, saved_teacher=None
    )


def precision(task: Task) -> Found:
    """Steps in mixed precision: the last loss, the scale and milliseconds a step."""
    for kind in (None, torch.bfloat16, torch.float16):
        model, optimizer, data = train_step.prepare(str(DEMO), 'LTMI', _sizes(task, 2))
        scales = kind == torch.float16 and not task.on_cpu
        scaler = torch.amp.GradScaler(task.device) if scales else None
        number = 2 if task.quick else 50
        times = [train_step.step(model, optimizer, data, kind, scaler) for _ in range(number)]
        loss = float(model.parse_losses(model.loss(*data))[0])
        scale = {} if scaler is None else {'scale': scaler.get_scale()}
        yield (
            str(kind or torch.float32),
            dict(loss=loss, ms=1e3 * sorted(times)[number // 2], **scale),
        )
        if not math.isfinite(loss):
            raise RuntimeError(f'the loss in {kind} is {loss}')


def compiled(task: Task) -> Found:
    """torch.compile of the contrastive term, and of a segmentor's losses."""
    backend = 'eager' if task.quick else 'inductor'
    size = gml.parse_size((TOY if task.quick else SIZES)[0])
    query, labels, ids, key, key_labels, key_ids, log_prior = gml.make_inputs(
        size, False, task.device
    )
    loss = GMLLoss(size['C']).to(task.device)
    small = torch.compile(loss, backend=backend)

    def term() -> Tensor:
        value = small(query, labels, key, key_labels, log_prior, query_ids=ids, key_ids=key_ids)
        value.backward()
        return value.detach()

    plain = loss(query, labels, key, key_labels, log_prior, query_ids=ids, key_ids=key_ids)
    first = seconds(term, task.device)
    milliseconds = 1e3 * min(seconds(term, task.device) for _ in range(5))
    yield 'term', dict(
        first_s=first, ms=milliseconds, launches=launches(term, task.device),
        difference=abs(float(term()) - float(plain)),
    )  # fmt: skip
    if task.quick:
        return
    model, optimizer, data = train_step.prepare(str(DEMO), 'LTMI', _sizes(task, 2))
    before = 1e3 * min(train_step.step(model, optimizer, data) for _ in range(5))
    model.loss = torch.compile(model.loss, backend=backend)
    first = train_step.step(model, optimizer, data)
    times = [train_step.step(model, optimizer, data) for _ in range(20)]
    yield 'step', dict(first_s=first, ms=1e3 * min(times), plain_ms=before)


def evaluate(task: Task) -> Found:
    """Evaluation with 21 taus and the like against IoUMetric alone, of random weights."""
    init_default_scope('mmseg')
    cfg = _demo(task)
    checkpoint = task.out / 'random.pth'
    torch.save(MODELS.build(cfg.model).state_dict(), checkpoint)
    prior = [2.0**-c for c in range(cfg.model.decode_head.num_classes)]
    number = 2 if task.quick else 40
    yield from evaluation.measure(cfg, checkpoint, task.device, number, prior)[0].items()
    checkpoint.unlink()


def blocks(task: Task) -> Found:
    """Milliseconds of the kernels, by the queries and keys of a tile, warps and stages."""
    _need_triton()
    from mmseg_ltmi.core.losses import class_mixture_triton as launcher

    cuts: list[tuple[int, int, int, int]] = [(16, 16, 4, 1)]
    if not task.on_cpu:
        cuts = [
            (64, 64, 8, 2), (64, 64, 8, 3), (64, 64, 4, 2), (64, 32, 8, 2), (64, 32, 8, 3),
            (64, 32, 4, 2), (128, 64, 8, 2), (128, 32, 8, 2), (32, 64, 4, 2), (32, 32, 8, 2),
        ]  # fmt: skip
    choose = launcher.choose_blocks
    for text in TOY if task.quick else SIZES:
        size = gml.parse_size(text)
        query, _, ids, key, labels, key_ids, _ = gml.make_inputs(size, False, task.device)
        query, weight = query.detach() / 0.1, torch.ones(size['N'], size['C'], device=task.device)

        def both(
            q: Tensor = query, k: Tensor = key, y: Tensor = labels, w: Tensor = weight,
            names: tuple[Tensor, Tensor] = (ids, key_ids), number: int = size['C'],
        ) -> None:  # fmt: skip
            tiles, sums = launcher.mixture(q, k, y, number, False, names)
            launcher.gradients(q, k, names, tiles, sums, w, None, (True, False))

        for cut in (None, *cuts):
            chosen = choose(query, size['K'], size['C']) if cut is None else launcher.Blocks(*cut)
            launcher.choose_blocks = lambda *_, b=chosen: b
            try:
                value = f'{1e3 * min(seconds(both, task.device) for _ in range(4)):.3f}'
            except Exception as error:  # such as more shared memory than there is
                value = f'{type(error).__name__}: {error}'[:90]
            yield f'{text}, {"chosen: " if cut is None else ""}{tuple(chosen)}', value
    launcher.choose_blocks = choose


def training(task: Task) -> Found:
    """A pair of trainings: CamVid where it is, else the demo's shapes."""
    data = Path(os.environ.get('LTMI_CAMVID_ROOT', ROOT / 'data/camvid11'))
    for form in ('ce', 'ltmi'):
        if data.is_dir() and not task.quick:
            cfg = Config.fromfile(ROOT / f'configs/camvid/{form}_fcn-r18_1k_camvid-176x176.py')
        else:
            cfg = _demo(task, form)
        if task.quick:
            cfg.train_cfg.max_iters = 2
        cfg.work_dir = str(task.out / f'{form}-training')
        start = time.perf_counter()
        runner = train(cfg)
        figures: dict[str, float] = {'seconds': time.perf_counter() - start}
        figures.update(runner.test())
        wanted = ('seconds', 'mIoU', 'mAcc', 'mIoU_head', 'mIoU_medium', 'mIoU_tail')
        yield form, {name: figures[name] for name in wanted if name in figures}


def _demo(task: Task, form: str = 'ltmi') -> Config:
    cfg = Config.fromfile(DEMO.with_name(DEMO.name.replace('ltmi', form)))
    size, number = ((32, 32), 8) if task.quick else ((512, 512), 64)
    cfg.log_level = 'WARNING'
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.update(data_root=str(task.out / 'shapes'), size=size, num_images=number)
        if task.quick:
            loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    if 'custom_hooks' in cfg and task.quick:
        cfg.custom_hooks[0].num_workers = 0
    cfg.model.data_preprocessor.size = size
    return cfg
