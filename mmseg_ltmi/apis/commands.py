"""What each command of ``mmseg-ltmi`` does with its arguments, and what it shows.

A function per command; the exit status. Each imports what it needs.
"""

from __future__ import annotations

import argparse
import ast
import gc
import os
import sys
from pathlib import Path
from typing import Any

from mmseg_ltmi.readings import MEMORY_FILE

from .output_files import (
    beside,
    check_picture,
    printing_at_last,
    refuse_existing,
    refuse_inputs,
    try_to_write,
)


def switch_on(args: argparse.Namespace) -> int:
    from .switch_on import main

    out = args.out or Path(f'ltmi_{Path(args.config).stem}.py')
    main(args.config, args.class_prior, out, args.force)
    return 0


def train(args: argparse.Namespace) -> int:
    from . import runs

    _set_local_rank(args)
    runs.train(args.config, args.work_dir, args.resume, args.amp, _options_of(args), args.launcher)
    _leave_processes()
    return 0


def test(args: argparse.Namespace) -> int:
    from . import runs

    _set_local_rank(args)
    if args.per_class:
        try_to_write(Path(args.per_class))
    runs.test(
        args.config,
        args.checkpoint,
        args.work_dir,
        tau_test=args.tau_test,
        operating_point=args.operating_point,
        per_class=args.per_class,
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
        options=_options_of(args),
        launcher=args.launcher,
    )
    _leave_processes()
    return 0


def count(args: argparse.Namespace) -> int:
    refuse_existing([args.out], args.force)
    if args.plot:
        check_picture(args.plot)
        try_to_write(args.plot)
    try_to_write(args.out)
    from .count import count as count_classes

    cache = None if args.no_cache else args.out.with_suffix('.counts.txt')
    try:
        prior, failures = count_classes(
            args.config,
            args.split,
            num_workers=args.workers,
            strict=args.strict,
            cache=cache,
            as_trained=args.as_trained,
            seed=args.seed,
            progress=True,
            options=_options_of(args),
        )
    except KeyboardInterrupt:
        kept = args.as_trained is None and cache is not None
        print('\nstopped' + '; the same command goes on from here' * kept, file=sys.stderr)
        return 130
    from mmseg_ltmi.core.priors import list_failures

    if failures:
        print(list_failures(failures), file=sys.stderr)
    if prior is None:
        raise ValueError('no pixel with a class was counted: nothing is written')
    from mmseg_ltmi.prior_table import absent_classes, class_table
    from mmseg_ltmi.visualization import plot_class_prior

    # A count with holes keeps another name, so that nobody takes it for the whole.
    out = args.out.with_suffix('.partial.json') if failures else args.out
    plot = args.plot or out.with_suffix('.png')
    with printing_at_last(class_table(prior)):
        prior.save(out)
        plot_class_prior(prior, plot)
    if absent := absent_classes(prior):
        print(f'WARNING: {absent}', file=sys.stderr)
    print(f'wrote {out} and {plot}')
    if failures:
        print(f'{len(failures)} label files could not be counted', file=sys.stderr)
    return 1 if failures else 0


def memory(args: argparse.Namespace) -> int:
    out = args.out or beside(args.checkpoint, MEMORY_FILE)
    refuse_inputs([out], args.checkpoint)
    refuse_existing([out], args.force)
    _require_files(args.checkpoint)
    try_to_write(out)
    _set_local_rank(args)
    from mmengine.dist import barrier, is_main_process

    from .memory import make_memory, memory_of_queue, memory_table
    from .part_file import remove_part
    from .runs import join_processes

    join_processes(args.launcher)
    centers, how = args.centers or None, dict(seed=args.seed, options=_options_of(args))
    part = out.with_suffix('.drawn')
    if args.from_queue:
        if args.features == 'raw':
            raise ValueError('--from-queue has embedded features: leave --features raw out')
        found = memory_of_queue(args.config, args.checkpoint, centers, args.temperature, **how)
    else:
        found = make_memory(
            args.config,
            args.checkpoint,
            args.split,
            args.per_class,
            args.per_image,
            centers,
            args.features,
            args.temperature,
            part=part,
            keep_part=True,
            progress=is_main_process(),
            **how,
        )
    if is_main_process():
        with printing_at_last(memory_table(found)):
            found.save(out)
        print(f'wrote {out}: mmseg-ltmi choose --memory {out} says what it is worth')
    barrier()  # until it is written, what was drawn is all that there is
    if not args.from_queue:
        remove_part(part)
    _leave_processes()
    return 0


def choose(args: argparse.Namespace) -> int:
    out = args.out or (
        Path(args.work_dir, 'operating_point')
        if args.work_dir
        else beside(args.checkpoint, 'operating_point')
    )
    embedded = [args.embed] if args.embed else []
    refuse_inputs(embedded, args.checkpoint, args.memory)
    written = [out / name for name in ('operating_point.json', 'curves.png', 'per_class')]
    copied = out / MEMORY_FILE
    replaced = [copied] if args.memory and args.memory.resolve() != copied.resolve() else []
    refuse_existing([*written, *replaced, *embedded], args.force)
    _require_files(args.checkpoint)
    # An empty per_class would look like an earlier choice, if this one ends before it has any.
    rows = [out / 'per_class' / 'natural.json'] if (out / 'per_class').exists() else []
    try_to_write(*written[:2], *rows, *embedded)
    from .choose import choose as choose_point

    found = choose_point(
        args.config,
        args.checkpoint,
        select=args.select,
        report=args.report,
        folds=args.folds,
        choice=args.choose,
        rankseg=args.rankseg,
        class_prior=args.class_prior,
        max_values=args.max_values,
        memory=args.memory,
        progress=True,
        options=_options_of(args),
        warn=lambda text: print(f'WARNING: {text}', file=sys.stderr),
    )
    with printing_at_last(found.table, found.calibration_text):
        found.save(out)
        if args.embed:
            found.embed(args.checkpoint, args.embed)
    what = found.name if str(found.point) == found.name else f'{found.name} ({found.point})'
    print(f'chosen: {what}, in {out}/operating_point.json; curves in {out}/curves.png')
    if args.embed:
        print(f'{args.embed} holds it: mmseg-ltmi test reads it there')
    return 0


def compare(args: argparse.Namespace) -> int:
    from mmseg_ltmi.evaluation.run_comparison import SEED

    from .compare import compare as compare_runs

    found = compare_runs(args.runs, args.seed_pattern or SEED, args.reading)
    for group in found.groups.values():
        for run in group:
            print(f'{run.name} {run.seed}: {run.file}', file=sys.stderr)
    with printing_at_last(found.table):
        found.save(args.out)
    print(f'written to {args.out}', file=sys.stderr)
    return 0


def browse(args: argparse.Namespace) -> int:
    if len(args.checkpoints) > 2:
        raise ValueError('one or two checkpoints fit a page')
    out = args.out or beside(args.checkpoints[0], 'tail.png')
    check_picture(out)
    refuse_existing([out], args.force)
    _require_files(*args.checkpoints)
    try_to_write(out)
    from .browse import browse as browse_tail

    page = browse_tail(
        args.config,
        args.checkpoints,
        other_config=args.other_config,
        split=args.split,
        class_prior=args.class_prior,
        classes=args.classes,
        num_images=args.num_images,
        tau_test=args.tau_test,
        device=args.device,
        options=_options_of(args),
        progress=True,
    )
    page.save(out)
    print(f'{len(page.images)} images in {out}')
    return 0


def explain(args: argparse.Namespace) -> int:
    file = args.json
    if file is not None and file.suffix != '.json':
        raise ValueError(f'{file}: the figures are JSON. Let the name end in .json')
    page = args.page or (args.memory and args.memory.with_suffix('.png'))
    if args.memory is None and (args.page or args.classes):
        raise ValueError('--page and --classes go with --memory FILE, of mmseg-ltmi memory')
    if page is not None:
        check_picture(page)
    written = [path for path in (file, page) if path is not None]
    refuse_inputs(written, args.operating_point)
    refuse_existing(written, args.force)
    _require_files(args.checkpoint)
    try_to_write(*written)
    from mmseg_ltmi.evaluation import write_rows

    from .explain import explain as explain_classes

    found = explain_classes(
        args.config,
        args.checkpoint,
        args.split,
        args.width,
        args.class_prior,
        args.operating_point,
        progress=True,
        options=_options_of(args),
    )
    with printing_at_last(found.table):
        if file is not None:
            write_rows(found.rows, file)
    if file is not None:
        print(f'figures in {file}')
    if page is not None:
        _draw_neighbors(args, page)
        print(f'pixels and their nearest stored pixels in {page}')
    return 0


def _draw_neighbors(args: argparse.Namespace, page: Path) -> None:
    from mmseg_ltmi.visualization import draw_neighbors_page

    from .neighbors import find_neighbors

    rows = find_neighbors(
        args.config,
        args.checkpoint,
        args.memory,
        args.split,
        args.classes,
        class_prior=args.class_prior,
        progress=True,
        options=_options_of(args),
    )
    draw_neighbors_page(rows, page)


def convert(args: argparse.Namespace) -> int:
    refuse_inputs([args.out], args.checkpoint)
    refuse_existing([args.out], args.force)
    from .convert import convert as convert_checkpoint

    state = convert_checkpoint(args.checkpoint, args.out, args.tau_test)
    how = f'read at tau_test={args.tau_test:g}' if args.tau_test else 'with the same predictions'
    print(f'{args.out}: {len(state)} tensors, {how}')
    return 0


def convert_labels(args: argparse.Namespace) -> int:
    refuse_existing([args.out], args.force)
    from .convert_labels import convert_labels as convert_masks

    options = (args.palette, args.suffix, args.ignore_others)
    found = convert_masks(args.masks, args.out, *options, progress=True)
    *of_classes, others = (100 * found.pixels / found.pixels.sum()).tolist()
    for index, share in enumerate(of_classes):
        print(f'class {index}: {share:.4f} % of the pixels')
    print(f'{found.num_files} label maps in {args.out}, {others:.4f} % of the pixels ignored')
    return 0


def _options_of(args: argparse.Namespace) -> dict[str, Any]:
    # mmengine's own reading of --cfg-options, which the light parser has left as texts.
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    options: dict[str, Any] = {}
    for pair in args.cfg_options or []:
        key, value = pair.split('=', maxsplit=1)
        try:
            options[key] = _quoted_or_path(value.strip())
        except (SyntaxError, ValueError):
            options |= parser.parse_args(['--options', pair]).options
    return options


def _quoted_or_path(value: str) -> Any:
    """A text with spaces or commas, or a list of texts in quotes; else ValueError or SyntaxError.

    mmengine drops the spaces of a value, and splits it at its commas.
    """
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in '\'"'
    text = value[1:-1] if is_quoted else value
    if text[:1] in ('[', '('):
        if is_quoted or not {'"', "'"} & set(text):
            raise ValueError
        return ast.literal_eval(text)
    if (is_quoted or ',' not in text or os.path.exists(text)) and {' ', ','} & set(text):
        return text
    raise ValueError


def _set_local_rank(args: argparse.Namespace) -> None:
    # torch.distributed.launch gives it as an option, torchrun in the environment.
    if args.launcher != 'none':
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def _leave_processes() -> None:
    # Whoever is ready first must not take the connection from those who are not.
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # torch may abort at exit where a DistributedDataParallel outlives the group
        distributed.barrier()
        distributed.destroy_process_group()


def _require_files(*checkpoints: str | Path) -> None:
    # Before anything is built. mmengine reads from an address as well.
    for checkpoint in map(str, checkpoints):
        if '://' not in checkpoint and not os.path.isfile(checkpoint):
            raise FileNotFoundError(f'there is no checkpoint {checkpoint}')
