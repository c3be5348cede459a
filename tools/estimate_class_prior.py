"""Count how often each class occurs in a data set of an mmsegmentation config.

The counts of each image are kept beside --out, in NAME.counts.txt: a run that was stopped goes on
where it was, and a later one reads only label files that are new or changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from prettytable import PrettyTable

import mmseg_ltmi  # noqa: F401  registers everything
from mmseg_ltmi import ClassPrior
from mmseg_ltmi.priors import count_as_trained, count_dataset
from mmseg_ltmi.visualization import plot_class_prior


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='any mmsegmentation config')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--plot', type=Path, help='PNG to write; default: beside --out')
    parser.add_argument('--workers', type=int, default=2, help='processes, 0 for none')
    parser.add_argument('--strict', action='store_true', help='stop at the first bad label file')
    parser.add_argument('--force', action='store_true', help='replace an existing --out')
    parser.add_argument('--no-cache', action='store_true', help='count every image, keep nothing')
    parser.add_argument(
        '--as-trained',
        type=int,
        metavar='N',
        help='count N samples as the pipeline crops and resizes them, not the raw labels',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the samples of --as-trained')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value overrides')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.out.exists() and not args.force:
        sys.exit(f'{args.out} exists: name another file or give --force')
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope('mmseg')
    from mmseg.registry import DATASETS

    loader = cfg.get(f'{args.split}_dataloader')
    if loader is None:
        sys.exit(f'{args.config} has no {args.split}_dataloader: choose another --split')
    dataset = DATASETS.build(loader.dataset)
    args.out.parent.mkdir(parents=True, exist_ok=True)  # fail before the counting, not after
    options = dict(num_workers=args.workers, strict=args.strict, progress=sys.stdout.isatty())
    cache = None if args.no_cache else args.out.with_suffix('.counts.txt')
    try:
        if args.as_trained is not None:
            prior, failures = count_as_trained(dataset, args.as_trained, args.seed, **options)
        else:
            prior, failures = count_dataset(dataset, cache=cache, **options)
    except (ValueError, OSError) as error:
        sys.exit(f'\n{error}')
    except KeyboardInterrupt:
        kept = args.as_trained is None and cache is not None
        print('\nstopped' + '; the same command goes on from here' * kept, file=sys.stderr)
        return 130
    print()
    for path, reason in failures:
        print(f'{path}: {reason}', file=sys.stderr)
    if prior is None:
        sys.exit('no pixel with a class was counted: nothing is written')
    # A count with holes keeps another name, so that nobody takes it for the whole.
    out = args.out.with_suffix('.partial.json') if failures else args.out
    print(class_table(prior))
    plot = args.plot or out.with_suffix('.png')
    prior.save(out)
    plot_class_prior(prior, plot)
    print(f'wrote {out} and {plot}')
    if failures:
        print(f'{len(failures)} label files could not be counted', file=sys.stderr)
    return 1 if failures else 0


def class_table(prior: ClassPrior) -> str:
    """A row per class, from frequent to rare."""
    table = PrettyTable(['class', 'pixels', '%', 'images', 'group'], align='r')
    table.align['class'] = 'l'
    probs = prior.probs(0)
    for group, members in prior.groups()._asdict().items():
        for c in members:
            images = '-' if prior.image_counts is None else prior.image_counts[c]
            share = f'{100 * probs[c]:.4f}'
            table.add_row([prior.names[c], f'{prior.pixel_counts[c]:,}', share, images, group])
    return f'{table}\n{prior.num_images} images, {prior.num_ignored:,} pixels ignored'


if __name__ == '__main__':
    sys.exit(main())
