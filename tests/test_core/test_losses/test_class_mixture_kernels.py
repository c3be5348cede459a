"""The Triton kernels against the torch form: on a GPU, or by Triton's interpreter on the CPU."""

import math
import os
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from mmseg_ltmi.core.losses import GMLLoss, class_mixture

pytest.importorskip('triton')
# The interpreter is numpy's.
pytestmark = pytest.mark.filterwarnings('ignore:.* encountered in:RuntimeWarning')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
USED = 'tf32x3' if DEVICE == 'cuda' else 'interpret'
# The interpreter computes in float64 too, which shows errors that rounding would hide.
EXACT = torch.float32 if DEVICE == 'cuda' else torch.float64
TOLERANCE = {
    torch.float64: dict(rtol=1e-10, atol=1e-11),
    torch.float32: dict(rtol=1e-4, atol=1e-4),
}


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """They are wanted on the CPU too, and a failure is forgotten."""
    monkeypatch.setenv('LTMI_TRITON', USED)
    monkeypatch.setattr(class_mixture, '_failed', [])


def problem(queries, keys, num_classes, channels, dtype=EXACT, own=True):
    """Inputs with a class without a key, one that is all own keys, and keys without a class."""
    torch.manual_seed(0)
    query = 5 * F.normalize(torch.randn(queries, channels, dtype=dtype), dim=1)
    key = F.normalize(torch.randn(keys, channels, dtype=dtype), dim=1)
    labels = torch.randint(-1, num_classes + 1, (keys,))
    labels[labels == 1] = 0
    names = {}
    if own:
        ids, key_ids = (torch.randint(-3, queries, (n,)) for n in (queries, keys))
        key_ids[labels == num_classes - 1] = ids[0]
        names = dict(query_ids=ids, key_ids=key_ids)
    return query, key, labels, num_classes, names


def values_and_gradients(inputs, used=USED, device=DEVICE, only_held_out=False):
    query, key, labels, num_classes, names = inputs
    query, key = (x.detach().to(device).requires_grad_() for x in (query, key))
    names = {name: ids.to(device) for name, ids in names.items()}
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, len(query), num_classes, generator=generator, dtype=query.dtype)
    with patch.dict('os.environ', LTMI_TRITON=used):
        result = class_mixture.class_mixture(
            query, key, labels.to(device), num_classes, only_held_out=only_held_out, **names
        )
        is_kernel = 'Kernel' in type(result.held_out.grad_fn).__name__
        total = sum(
            (values.masked_fill(values == -torch.inf, 0) * weight).sum()
            for values, weight in zip(result[:2], weights.to(device), strict=True)
        )
        total.backward()
    assert is_kernel == (used != '0')
    return [x.detach().cpu().double() for x in (*result, query.grad, key.grad)]


@pytest.mark.parametrize('only_held_out', [False, True])
@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('sizes', [(1, 1, 1, 1), (70, 150, 5, 20), (33, 130, 9, 130)])
def test_same_as_torch(sizes, own, only_held_out):
    inputs = problem(*sizes, own=own)
    ours = values_and_gradients(inputs, only_held_out=only_held_out)
    exact = values_and_gradients(inputs, '0', 'cpu', only_held_out)
    for value, reference in zip(ours, exact, strict=True):
        torch.testing.assert_close(value, reference, **TOLERANCE[EXACT])


@pytest.mark.parametrize(
    'blocks, splits', [((16, 16), 1), ((16, 16), 40), ((32, 64), 2), ((64, 32), 7)]
)
def test_every_cut(blocks, splits):
    from mmseg_ltmi.core.losses import class_mixture_triton

    inputs = problem(40, 90, 5, 16)
    cut = class_mixture_triton.Blocks(*blocks, warps=4, stages=2)
    with (
        patch.object(class_mixture_triton, 'choose_blocks', return_value=cut),
        patch.object(class_mixture_triton, '_splits', return_value=splits),
    ):
        ours = values_and_gradients(inputs)
    for value, reference in zip(ours, values_and_gradients(inputs, '0', 'cpu'), strict=True):
        torch.testing.assert_close(value, reference, **TOLERANCE[EXACT])


@pytest.mark.skipif(DEVICE == 'cpu', reason='the interpreter knows neither TF32 nor bfloat16')
@pytest.mark.parametrize('used, tolerance', [('tf32x3', 1e-4), ('tf32', 1e-2), ('bf16', 0.1)])
@pytest.mark.parametrize('sizes', [(300, 900, 4, 128), (70, 90, 30, 256)])
def test_every_precision(sizes, used, tolerance):
    inputs = problem(*sizes, torch.float32)
    ours = values_and_gradients(inputs, used)
    for value, reference in zip(ours, values_and_gradients(inputs, '0', 'cpu'), strict=True):
        torch.testing.assert_close(value, reference, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(DEVICE == 'cuda', reason='shows how the interpreter does')
def test_float32_is_added_in_float32():
    inputs = problem(40, 90, 4, 32, torch.float32)
    ours = values_and_gradients(inputs)
    for value, reference in zip(ours, values_and_gradients(inputs, '0', 'cpu'), strict=True):
        torch.testing.assert_close(value, reference, rtol=2e-5, atol=2e-5)


def test_an_unknown_switch_is_named(monkeypatch):
    monkeypatch.setenv('LTMI_TRITON', 'off')
    with pytest.raises(ValueError, match='LTMI_TRITON.*off.*use 0, bf16'):
        class_mixture.takes_kernels(torch.eye(2), torch.eye(2), 2)


@pytest.mark.parametrize('own_key', [True, False])
@pytest.mark.parametrize('learn', [True, False])
def test_both_terms_of_the_loss(learn, own_key):
    query, key, key_labels, num_classes, names = problem(40, 90, 5, 8)
    labels = torch.randint(-1, num_classes, (len(query),))
    log_prior = torch.randn(num_classes).log_softmax(0)
    results = []
    for used, device in ((USED, DEVICE), ('0', 'cpu')):
        loss = GMLLoss(num_classes, 0.2, learn, own_key=own_key).to(device, query.dtype)
        q, k = (F.normalize(x, dim=1).to(device).requires_grad_() for x in (query, key))
        ids = {name: ids.to(device) for name, ids in names.items()}
        with patch.dict('os.environ', LTMI_TRITON=used):
            value = loss(
                q, labels.to(device), k, key_labels.to(device), log_prior.to(device), **ids
            )
            value.backward()
        leaves = [q, k, *([loss.log_temperature_change] if learn else [])]
        results.append([value.detach().cpu(), *(x.grad.cpu() for x in leaves)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, **TOLERANCE[EXACT])


def test_own_key_far_above_all_others():
    query = torch.tensor([[1.0, 0.0]], device=DEVICE)
    key = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], device=DEVICE)
    key_labels, key_ids = (
        torch.tensor(x, device=DEVICE) for x in ([0, 0, 0, 1], [2**40 + 1, 2**40, -1, 2**40 + 1])
    )
    everything, held_out, expected = (
        x.cpu()
        for x in class_mixture.class_mixture(
            query / 1e-3, key, key_labels, 2, query_ids=key_ids[:1], key_ids=key_ids
        )
    )
    torch.testing.assert_close(everything, torch.tensor([[1000 - math.log(3), 1000.0]]))
    torch.testing.assert_close(held_out, torch.tensor([[-math.log(2), -math.inf]]))
    torch.testing.assert_close(expected, torch.zeros(1, 2), rtol=0, atol=1e-4)


def test_what_is_not_finite_is_not_hidden():
    query, key, labels, num_classes, names = problem(20, 60, 3, 8, torch.float32)
    query[3, 0] = torch.nan
    result = values_and_gradients((query, key, labels, num_classes, names))
    assert result[0][3].isnan().any() and result[3][3].isnan().any()
    assert result[0][4].isfinite().any() and result[3][4].isfinite().all()


@pytest.mark.parametrize('broken', ['mixture', 'gradients'])
def test_torch_takes_over_where_a_kernel_fails(broken):
    from mmseg_ltmi.core.losses import class_mixture_triton

    inputs = problem(12, 40, 4, 8)
    failing = patch.object(class_mixture_triton, broken, side_effect=RuntimeError('no compiler'))
    with failing, pytest.warns(UserWarning, match='LTMI_TRITON=0.*no compiler'):
        query, key, labels, num_classes, names = inputs
        query, key = query.to(DEVICE).requires_grad_(), key.to(DEVICE).requires_grad_()
        names = {name: ids.to(DEVICE) for name, ids in names.items()}
        result = class_mixture.class_mixture(query, key, labels.to(DEVICE), num_classes, **names)
        seen = result.held_out[result.held_out.isfinite()].sum()
        (seen + 2 * result.everything[result.everything.isfinite()].sum()).backward()
    assert not class_mixture.takes_kernels(query, key, num_classes)  # from then on

    exact_query, exact_key = (x.detach().cpu().requires_grad_() for x in (query, key))
    exact = class_mixture.class_mixture(exact_query, exact_key, labels, num_classes, **inputs[4])
    seen = exact.held_out[exact.held_out.isfinite()].sum()
    (seen + 2 * exact.everything[exact.everything.isfinite()].sum()).backward()
    for ours, reference in ((query, exact_query), (key, exact_key)):
        torch.testing.assert_close(ours.grad.cpu(), reference.grad, **TOLERANCE[EXACT])


def test_what_the_kernels_do_not_take():
    query, key, labels, num_classes, _ = problem(4, 9, 3, 300)
    assert not class_mixture.takes_kernels(query, key, num_classes)  # too many channels
    assert not class_mixture.takes_kernels(query[:, :8], key[:0, :8], num_classes)
    assert class_mixture.takes_kernels(query[:, :8], key[:, :8], num_classes) == (DEVICE == 'cpu')
    mask = torch.zeros(4, 9, dtype=torch.bool)
    result = class_mixture.class_mixture(
        query[:, :8].requires_grad_(), key[:, :8], labels, num_classes, exclude=mask
    )
    assert 'Kernel' not in type(result.held_out.grad_fn).__name__


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget

from mmseg_ltmi.core.losses import class_mixture_kernels as kernels

TYPES = dict(order='*i64', query_id='*i64', key_id='*i64', first='*i32', last_tile='*i32',
             row_of='*i32', class_of='*i32', size='i32', channels='i32', num_classes='i32',
             splits='i32', all_c='i32', kept_c='i32')
CONSTANTS = dict(IDS=True, OWN=True, ALL=True, KEPT=True, PRECISION='tf32', ACC=tl.float32,
                 QUERIES=32, TILE=16, CHANNELS=32, CLASSES=4, all_n=1, kept_n=1)
for name in ('tile', 'sums', 'join', 'query', 'key'):
    kernel = getattr(kernels, name + '_kernel')
    signature, constants = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in CONSTANTS:
            signature[argument] = 'constexpr'
            constants[place,] = CONSTANTS[argument]
        else:
            signature[argument] = TYPES.get(argument, '*fp32')
    source = triton.compiler.ASTSource(kernel, signature, constants)
    assert triton.compile(source, target=GPUTarget('cuda', 80, 32)).asm['cubin']
"""


@pytest.mark.skipif(DEVICE == 'cuda', reason='the other tests have compiled them')
def test_kernels_compile_without_a_gpu(tmp_path):
    # The interpreter runs much that Triton's compiler refuses.
    environment = {**os.environ, 'TRITON_INTERPRET': '0', 'TRITON_CACHE_DIR': str(tmp_path)}
    done = subprocess.run(
        [sys.executable, '-c', COMPILE], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_a_compiled_loss_is_torchs():
    from mmseg_ltmi.core.losses import class_mixture_triton

    query, key, key_labels, num_classes, names = problem(12, 40, 4, 8)
    labels, log_prior = torch.arange(12) % num_classes, torch.zeros(num_classes)
    inputs = [x.to(DEVICE) for x in (query, labels, key, key_labels, log_prior)]
    names = {name: ids.to(DEVICE) for name, ids in names.items()}
    loss = GMLLoss(num_classes).to(DEVICE, query.dtype)
    value = loss(*inputs, **names)
    with patch.object(class_mixture_triton, 'mixture', side_effect=AssertionError('not taken')):
        compiled = torch.compile(loss, backend='eager')(*inputs, **names)
    torch.testing.assert_close(compiled, value, **TOLERANCE[EXACT])


def test_the_cpu_takes_kernels_only_when_told(monkeypatch):
    monkeypatch.delenv('LTMI_TRITON')
    assert not class_mixture.takes_kernels(torch.eye(2), torch.eye(2), 2)
