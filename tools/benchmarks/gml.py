"""Time and memory of the mixture loss: this project's, the straightforward form's, two products'.

One size at a time is varied around the base: queries N, keys K, classes C, channels D. A run is
both terms of the loss, forward and backward, on the CPU with one thread; ``products`` are the
matrix products ``q @ k.T`` and ``(N, K) @ k`` alone, which any form needs. With
``--key-gradient`` the keys learn too, and ``(K, N) @ q`` counts among the products.

Runs are interleaved, times are the processor's, which other jobs disturb least, and ratios are
medians over the rounds of the ratio within a round. Memory is that of a process of its own for
each form: its peak above what it held before the run, from /proc, so it needs Linux. An exponent
is the slope of a straight line through the logarithms.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from prettytable import PrettyTable
from torch import Tensor

from mmseg_ltmi.core import GMLLoss

BASE = {'N': 2048, 'K': 8192, 'C': 150, 'D': 128}
SWEEPS = {
    'N': (512, 1024, 2048, 4096),
    'K': (2048, 4096, 8192, 16384),
    'C': (19, 50, 150, 400),
    'D': (32, 64, 128, 256),
}
TEMPERATURE = 0.1


def make_inputs(size: dict[str, int], key_gradient: bool) -> tuple[Tensor, ...]:
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
    query.requires_grad_(), key.requires_grad_(key_gradient)
    return query, labels, torch.arange(n), key, key_labels, key_ids, log_prior


def ours(inputs: tuple[Tensor, ...]) -> None:
    query, labels, ids, key, key_labels, key_ids, log_prior = inputs
    loss = GMLLoss(len(log_prior), TEMPERATURE)
    loss(query, labels, key, key_labels, log_prior, query_ids=ids, key_ids=key_ids).backward()


def naive(inputs: tuple[Tensor, ...]) -> None:
    """From the formula, term by term; autograd does the rest."""
    query, labels, ids, key, key_labels, key_ids, log_prior = inputs
    one_hot = F.one_hot(key_labels, len(log_prior)).float()
    log_t = torch.tensor(math.log(TEMPERATURE), requires_grad=True)
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


RUN = {'ours': ours, 'naive': naive, 'products': products}


def peak_mib(form: str, size: dict[str, int], args: argparse.Namespace) -> float:
    """What a run adds to the peak memory of a fresh process."""
    torch.set_num_threads(1)
    RUN[form](make_inputs({**size, 'N': 16, 'K': 2 * size['C']}, args.key_gradient))  # loads all
    inputs = make_inputs(size, args.key_gradient)
    # Not ru_maxrss, which starts at what the parent held. Writing 5 resets the peak to the present.
    Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')
    before = high_water_kib()
    RUN[form](inputs)
    return (high_water_kib() - before) / 2**10


def high_water_kib() -> int:
    """The process's peak resident memory; Linux only."""
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    return int(status.split('VmHWM:')[1].split()[0])


def measure(size: dict[str, int], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median seconds, ratio to the products and peak memory of each form."""
    memory = {}
    for form in RUN:
        with multiprocessing.get_context('spawn').Pool(1) as pool:
            memory[form] = pool.apply(peak_mib, (form, size, args))
    inputs = make_inputs(size, args.key_gradient)
    times: dict[str, list[float]] = {form: [] for form in RUN}
    for round_ in range(-1, args.rounds):
        for form, run in RUN.items():
            start = time.process_time()
            run(inputs)
            if round_ >= 0:  # the one before warms up
                times[form].append(time.process_time() - start)
    return {
        form: {
            'seconds': statistics.median(values),
            'ratio': statistics.median(
                v / b for v, b in zip(values, times['products'], strict=True)
            ),
            'peak_mib': memory[form],
        }
        for form, values in times.items()
    }


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
            for form in RUN:
                values = [row[form][key] for row in sweep['sizes'].values()]
                slope = sweep['exponents'][form][key]
                axis.loglog(sizes, values, marker='o', label=f'{form}, exponent {slope:.2f}')
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.minorticks_off()
            axis.set_xlabel(name)
            axis.legend(fontsize='small')
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--vary', nargs='*', choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument('--key-gradient', action='store_true', help='let the keys learn too')
    parser.add_argument('--json', type=Path, help='write the figures here')
    parser.add_argument('--plot', type=Path, help='draw the figures here')
    args = parser.parse_args()
    torch.set_num_threads(1)
    print('base:', ', '.join(f'{name}={value}' for name, value in BASE.items()))
    figures = {}
    for name in args.vary:
        table = PrettyTable([name, 'form', 'ms', 'times products', 'peak MiB'])
        rows = {}
        for value in SWEEPS[name]:
            rows[value] = measure({**BASE, name: value}, args)
            for form, row in rows[value].items():
                table.add_row(
                    [
                        value,
                        form,
                        f'{1e3 * row["seconds"]:.0f}',
                        f'{row["ratio"]:.2f}',
                        f'{row["peak_mib"]:.0f}',
                    ]
                )
        exponents = {
            form: {
                key: exponent(list(rows), [row[form][key] for row in rows.values()])
                for key in ('seconds', 'peak_mib')
            }
            for form in RUN
        }
        for form, slopes in exponents.items():
            table.add_row(
                ['exponent', form, f'{slopes["seconds"]:.2f}', '', f'{slopes["peak_mib"]:.2f}']
            )
        print(table, flush=True)
        figures[name] = {'sizes': rows, 'exponents': exponents}
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    if args.plot is not None:
        plot(figures, args.plot)


if __name__ == '__main__':
    main()
