"""Finds out on one GPU, in under eight minutes, what only a GPU can show.

    python tools/benchmarks/gpu.py --out work_dirs/gpu

The parts run one after the other, each in a process of its own with a limit of its own, so that one
that fails, or hangs, does not stop the rest: the environment; the Triton kernels against torch;
the GPU's tests; the contrastive term against its two bare matrix products; mixed precision and
torch.compile; whole training steps; evaluation; and, if there is time, a pair of trainings.

Writes gpu.json, gpu.md (tables), gpu.png and a log of each part. The exit status is 1 if a part
failed. ``--device cpu --quick`` tries all of it at toy size, where no figure means anything.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
# The generators of gpu_parts.py, and the most seconds that each may take.
PARTS = {
    'environment': 40,
    'kernels': 90,
    'tests': 90,
    'contrast': 90,
    'steps': 120,
    'precision': 60,
    'evaluate': 60,
    'compiled': 90,
    'blocks': 90,
    'training': 200,
}
ENOUGH = 15  # seconds; with fewer left no part begins


def run_part(name: str, device: str, quick: bool, out: Path) -> None:
    """In a process of its own: what is found into NAME.json, all that is printed to NAME.log."""
    os.setsid()  # so that what it starts can be ended with it
    sys.path.insert(0, str(ROOT / 'tests'))
    os.chdir(ROOT)
    found: dict[str, Any] = {'status': 'stopped', 'result': {}}
    with (
        (out / f'{name}.log').open('w', encoding='utf-8') as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            import gpu_parts

            for key, value in getattr(gpu_parts, name)(gpu_parts.Task(device, quick, out)):
                found['result'][key] = value
                write(out / f'{name}.json', found)
            found['status'] = 'done'
        except BaseException as error:
            traceback.print_exc()
            left_out = type(error).__name__ == 'LeftOut'
            found['status'] = 'left out' if left_out else 'failed'
            found['why'] = f'{type(error).__name__}: {error}'[:2000]
    write(out / f'{name}.json', found)


def write(file: Path, found: dict[str, Any]) -> None:
    file.write_text(json.dumps(found, indent=1, default=float) + '\n', encoding='utf-8')


def bounded(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """A part's status, result and seconds."""
    # A forked process could not use CUDA; on a CPU it need not import all again.
    context: Any = multiprocessing.get_context('fork' if args.device == 'cpu' else 'spawn')
    file = args.out / f'{name}.json'
    file.unlink(missing_ok=True)  # of an earlier run
    start = time.perf_counter()
    process = context.Process(target=run_part, args=(name, args.device, args.quick, args.out))
    process.start()
    process.join(limit)
    found: dict[str, Any] = {}
    if process.is_alive():
        found['why'] = f'it took more than {limit:.0f} s'
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not got so far as to have a group
            process.kill()
        process.join()
    elif process.exitcode:
        found['why'] = f'the process ended with {process.exitcode}'
    if file.exists():
        found = {**json.loads(file.read_text(encoding='utf-8')), **found}
    if process.exitcode:
        found['status'] = 'stopped'
    return {**found, 'seconds': round(time.perf_counter() - start, 1)}


def table(name: str, part: dict[str, Any]) -> str:
    """A part in Markdown."""
    lines = [f'## {name}: {part["status"]}, {part["seconds"]} s', '']
    if 'why' in part:
        lines += ['    ' + line for line in part['why'].splitlines()]
    lines += [f'- {"; ".join(path)}: {value}' for path, value in leaves(part.get('result', {}))]
    return '\n'.join(lines)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Values with the names that lead to them; those of one place on one line."""
    if not isinstance(tree, dict):
        return [(path, str(tree))]
    if not any(isinstance(value, dict) for value in tree.values()) and path:
        figures = (f'{k} {v:.4g}' if isinstance(v, float) else f'{k} {v}' for k, v in tree.items())
        return [(path, ', '.join(figures))]
    return [leaf for name, value in tree.items() for leaf in leaves(value, (*path, str(name)))]


def plot(parts: dict[str, Any], path: Path) -> None:
    """The contrastive term and whole steps, as times of what they are compared with."""
    bars = {
        f'{kind}: {where}, {form}': row['ratio']
        for kind in ('contrast', 'steps', 'evaluate')
        for where, rows in _grouped(parts.get(kind, {}).get('result', {})).items()
        for form, row in rows.items()
        if isinstance(row, dict) and 'ratio' in row
    }
    figure = Figure(figsize=(9, 1.5 + 0.22 * len(bars)), layout='constrained')
    axis = figure.subplots()
    axis.bar_label(axis.barh(list(bars), list(bars.values())), fmt='%.2f', padding=2, fontsize=7)
    axis.tick_params(axis='y', labelsize=7)
    axis.invert_yaxis()
    axis.axvline(1, color='black', linewidth=0.8)
    axis.set_xscale('log')
    axis.set_xlabel('times the two products, cross-entropy, IoUMetric')
    figure.savefig(path, dpi=120)


def _grouped(result: dict[str, Any]) -> dict[str, Any]:
    return {'': result} if any('ratio' in row for row in result.values()) else result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--quick', action='store_true', help='everything at toy size')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu'), metavar='FOLDER')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--budget', type=float, default=470, metavar='S', help='seconds in all')
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.device == 'cpu':
        os.environ.setdefault('TRITON_INTERPRET', '1')  # Triton asks when it is imported
        import gpu_parts  # noqa: F401  once for all parts
    end = time.perf_counter() + args.budget
    parts: dict[str, Any] = {}
    for name in args.parts:
        left = end - time.perf_counter()
        parts[name] = {'status': 'left out', 'why': 'no time was left', 'seconds': 0}
        if left >= ENOUGH:
            parts[name] = bounded(name, args, min(PARTS[name], left))
        print(table(name, parts[name]), flush=True)
        # After every part, so that what is known stays.
        write(args.out / 'gpu.json', dict(device=args.device, quick=args.quick, parts=parts))
        text = '\n\n'.join(table(*item) for item in parts.items())
        (args.out / 'gpu.md').write_text(text + '\n', encoding='utf-8')
    plot(parts, args.out / 'gpu.png')
    return int(any(part['status'] in ('failed', 'stopped') for part in parts.values()))


if __name__ == '__main__':
    sys.exit(main())
