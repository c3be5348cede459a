"""Time and memory of the mixture loss: this project's, the straightforward form's, two products'.

One size at a time is varied around the base: queries N, keys K, classes C, channels D; or give
sizes with ``--sizes``. A run is both terms of the loss, forward and backward, on the CPU with one
thread, or with ``--device cuda``; ``separate`` is a call of gml_loss for each term, and
``products`` are the matrix products ``q @ k.T`` and ``(N, K) @ k`` alone, which any form needs.
With ``--key-gradient`` the keys learn too, and ``(K, N) @ q`` counts among the products.

Runs are interleaved, times on a CPU are the processor's, which other jobs disturb least, and ratios
are medians over the rounds of the ratio within a round. Memory on a CPU is that of a process of its
own for each form: its peak above what it held before the run, from /proc, so it needs Linux. An
exponent is the slope of a straight line through the logarithms. Launches are a GPU's kernels, or
torch's operators on a CPU.

On a GPU torch's products are in TF32, as the Triton kernels' are; ``ours, torch`` is without them.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from measuring import launches, peak_mib, process_mib, seconds
from prettytable import PrettyTable
from torch import Tensor

from mmseg_ltmi.core import GMLLoss
from mmseg_ltmi.core.losses import gml_loss

BASE = {'N': 2048, 'K': 8192, 'C': 150, 'D': 128}
SWEEPS = {
    'N': (512, 1024, 2048, 4096),
    'K': (2048, 4096, 8192, 16384),
    'C': (19, 50, 150, 400),
    'D': (32, 64, 128, 256),
}
TEMPERATURE = 0.1


def make_inputs(
    size: dict[str, int], key_gradient: bool, device: str = 'cpu'
) -> tuple[Tensor, ...]:
    """Query, its labels and identities, key, its labels and identities, log-prior."""
    generator = torch.Generator().manual_seed(0)
    n, k, c, d = (size[name] for name in 'NKCD')
    query = F.normalize(torch.randn(n, d, generator=generator), dim=1)
    key = F.normalize(torch.randn(k, d, generator=generator), dim=1)
    labels = torch.randint(0, c, (n,), generator=generator)
    key_labels = (torch.arange(k) % c).sort().values
    own = min(n, k) // 2  # half of the queries are among the keys
    key_ids = torch.full((k,), -1)
    key_ids[torch.randperm(k, generator=generator)[:own]] = torch.arange(own)
    log_prior = torch.full((c,), -math.log(c))
    query, labels, ids, key, key_labels, key_ids, log_prior = (
        x.to(device) for x in (query, labels, torch.arange(n), key, key_labels, key_ids, log_prior)
    )
    query.requires_grad_(), key.requires_grad_(key_gradient)
    return query, labels, ids, key, key_labels, key_ids, log_prior


def ours(inputs: tuple[Tensor, ...]) -> None:
    query, labels, ids, key, key_labels, key_ids, log_prior = inputs
    loss = GMLLoss(len(log_prior), TEMPERATURE).to(query.device)
    loss(query, labels, key, key_labels, log_prior, query_ids=ids, key_ids=key_ids).backward()


def separate(inputs: tuple[Tensor, ...]) -> None:
    query, labels, ids, key, key_labels, key_ids, log_prior = inputs
    temperature = torch.tensor(TEMPERATURE, device=query.device, requires_grad=True)
    contrast = gml_loss(query, labels, key, key_labels, log_prior, TEMPERATURE)
    fixed = query.detach(), labels, key.detach(), key_labels, log_prior
    (contrast + gml_loss(*fixed, temperature, query_ids=ids, key_ids=key_ids)).backward()


def naive(inputs: tuple[Tensor, ...]) -> None:
    """From the formula, term by term; autograd does the rest."""
    query, labels, ids, key, key_labels, key_ids, log_prior = inputs
    one_hot = F.one_hot(key_labels, len(log_prior)).float()
    log_t = torch.tensor(math.log(TEMPERATURE), device=query.device, requires_grad=True)
    kept = (ids[:, None] != key_ids).float()
    similarity = query @ key.T
    features = (similarity / TEMPERATURE).exp() @ one_hot / one_hot.sum(0)
    temperature = ((similarity.detach() / log_t.exp()).exp() * kept) @ one_hot / (kept @ one_hot)
    terms = [F.cross_entropy(mean.log() + log_prior, labels) for mean in (features, temperature)]
    (terms[0] + terms[1]).backward()


@torch.no_grad()
def products(inputs: tuple[Tensor, ...]) -> None:
    query, _, _, key, *_ = inputs
    score = query @ key.T
    score @ key
    if key.requires_grad:
        score.T @ query


RUN = {'ours': ours, 'separate': separate, 'naive': naive, 'products': products}
# What Triton's products are computed in, or that torch computes all.
SWITCHES = {'ours, bf16': 'bf16', 'ours, tf32x3': 'tf32x3', 'ours, torch': '0'}


def forms_on(device: str) -> list[str]:
    return [*RUN] if device == 'cpu' else [*SWITCHES, *RUN]


def run(form: str, inputs: tuple[Tensor, ...]) -> None:
    switch = SWITCHES.get(form, os.environ.get('LTMI_TRITON', 'tf32'))
    with patch.dict(os.environ, LTMI_TRITON=switch):
        RUN[form.partition(',')[0]](inputs)


def added_mib(form: str, size: dict[str, int], key_gradient: bool) -> float:
    """What a run adds to the peak memory of a fresh process."""
    torch.set_num_threads(1)
    run(form, make_inputs({**size, 'N': 16, 'K': 2 * size['C']}, key_gradient))  # loads all
    inputs = make_inputs(size, key_gradient)
    # Writing 5 resets the peak to the present.
    Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')
    before = process_mib()
    run(form, inputs)
    return process_mib() - before


def measure(
    size: dict[str, int],
    rounds: int,
    device: str = 'cpu',
    key_gradient: bool = False,
    memory: bool = True,
) -> dict[str, dict[str, float]]:
    """Median seconds, ratio to the products, launches and peak memory of each form."""
    inputs = make_inputs(size, key_gradient, device)
    times: dict[str, list[float]] = {form: [] for form in forms_on(device)}
    for round_ in range(-1, rounds):
        for form, values in times.items():
            taken = seconds(lambda f=form: run(f, inputs), device)  # type: ignore[misc]
            if round_ >= 0:  # the one before warms up
                values.append(taken)
    rows = {}
    for form, values in times.items():
        ratios = [v / b for v, b in zip(values, times['products'], strict=True)]
        rows[form] = {
            'seconds': statistics.median(values),
            'ratio': statistics.median(ratios),
            'launches': launches(lambda f=form: run(f, inputs), device),  # type: ignore[misc]
        }
        if not memory:
            continue
        if device != 'cpu':
            rows[form]['peak_mib'] = peak_mib(lambda f=form: run(f, inputs))  # type: ignore[misc]
            continue
        with multiprocessing.get_context('spawn').Pool(1) as pool:
            rows[form]['peak_mib'] = pool.apply(added_mib, (form, size, key_gradient))
    return rows


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value over log size, by least squares."""
    if min(values) <= 0:  # no page was added to the peak
        return math.nan
    x, y = torch.tensor(sizes).double().log(), torch.tensor(values).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def plot(figures: dict, path: Path) -> None:
    """Time and memory over each size."""
    figure = Figure(figsize=(4 * len(figures), 6.5), layout='constrained')
    for axes, key, label in zip(
        figure.subplots(2, len(figures), sharey='row', squeeze=False),
        ('seconds', 'peak_mib'),
        ('seconds', 'peak memory added (MiB)'),
        strict=True,
    ):
        axes[0].set_ylabel(label)
        for axis, (name, sweep) in zip(axes, figures.items(), strict=True):
            sizes = [int(size) for size in sweep['sizes']]
            for form in sweep['exponents']:
                values = [row[form][key] for row in sweep['sizes'].values()]
                slope = sweep['exponents'][form][key]
                axis.loglog(sizes, values, marker='o', label=f'{form}, exponent {slope:.2f}')
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.minorticks_off()
            axis.set_xlabel(name)
            axis.legend(fontsize='small')
    figure.savefig(path, dpi=120)


def parse_size(text: str) -> dict[str, int]:
    """N,K,C,D."""
    return dict(zip('NKCD', map(int, text.split(',')), strict=True))


def add_rows(table: PrettyTable, name: str, rows: dict[str, dict[str, float]]) -> None:
    for form, row in rows.items():
        figures = [f'{1e3 * row["seconds"]:.2f}', f'{row["ratio"]:.2f}', row['launches']]
        memory = f'{row["peak_mib"]:.0f}' if 'peak_mib' in row else ''
        table.add_row([name, form, *figures, memory])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--device', default='cpu')
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument('--vary', nargs='*', choices=SWEEPS, default=list(SWEEPS))
    sizes.add_argument('--sizes', nargs='+', type=parse_size, default=(), metavar='N,K,C,D')
    parser.add_argument('--key-gradient', action='store_true', help='let the keys learn too')
    parser.add_argument('--json', type=Path, help='write the figures here')
    parser.add_argument('--plot', type=Path, help='draw the figures of --vary here')
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision('high')  # of no effect on a CPU
    header = ['form', 'ms', 'times products', 'launches', 'peak MiB']
    figures: dict[str, dict] = {}
    if args.sizes:
        table = PrettyTable(['N,K,C,D', *header])
        for size in args.sizes:
            name = ','.join(map(str, size.values()))
            figures[name] = measure(size, args.rounds, args.device, args.key_gradient)
            add_rows(table, name, figures[name])
        print(table)
    else:
        print('base:', ', '.join(f'{name}={value}' for name, value in BASE.items()))
        for name in args.vary:
            figures[name] = sweep(name, header, args)
        if args.plot is not None:
            plot(figures, args.plot)
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')


def sweep(name: str, header: list[str], args: argparse.Namespace) -> dict[str, dict]:
    """Figures of each value of one size, and their exponents; prints them."""
    table = PrettyTable([name, *header])
    rows = {}
    for value in SWEEPS[name]:
        size = {**BASE, name: value}
        rows[value] = measure(size, args.rounds, args.device, args.key_gradient)
        add_rows(table, str(value), rows[value])
    exponents = {
        form: {
            key: exponent(list(rows), [row[form][key] for row in rows.values()])
            for key in ('seconds', 'peak_mib')
        }
        for form in forms_on(args.device)
    }
    for form, slopes in exponents.items():
        slope = f'{slopes["seconds"]:.2f}'
        table.add_row(['exponent', form, slope, '', '', f'{slopes["peak_mib"]:.2f}'])
    print(table, flush=True)
    return {'sizes': rows, 'exponents': exponents}


if __name__ == '__main__':
    main()
