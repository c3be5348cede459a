"""The options of the commands. Nothing but the standard library is imported for --help."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path

from .readings import CHOICES, MEMORY_FILE
from .version import __version__

PICTURE = 'picture to write, .png, .jpg, .pdf, .svg, ...'
SPLITS = ('train', 'val', 'test')


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='mmseg-ltmi', description='Rare classes in semantic segmentation.', allow_abbrev=False
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True, title='commands'
    )

    def add(
        name: str, text: str, fill: Callable[[argparse.ArgumentParser], None], more: str = ''
    ) -> None:
        command = commands.add_parser(
            name,
            help=text,
            description=f'{text[0].upper()}{text[1:]}.\n{more}'.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        fill(command)

    add('switch-on', 'write the config that trains another one with LTMI', _switch_on)
    add('train', 'train what a config describes', _train)
    add('test', 'test a trained model', _test)
    add('count', 'count how often each class occurs in a data set', _count, COUNT)
    add('memory', 'store pixels of each class, to read a trained model with', _memory, MEMORY)
    add('choose', 'choose how a trained model is read', _choose, CHOOSE)
    add('compare', 'compare runs, in a table and two plots', _compare, COMPARE)
    add('browse', 'draw the images that hold the rarest classes', _browse, BROWSE)
    add('explain', 'show what the classes are taken for', _explain, EXPLAIN)
    add('convert', 'turn an LTMI checkpoint into one of the stock head', _convert, CONVERT)
    add('convert-labels', 'turn colour masks into label maps', _convert_labels, CONVERT_LABELS)
    add('run', 'run a Python script with this package imported', _run, RUN)
    return parser


def _switch_on(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument(
        '--class-prior',
        metavar='NAME|FILE',
        help='default: the published one of the train set, else it is counted when training begins',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='config to write; default: ltmi_NAME.py of CONFIG, in the current folder',
    )
    _add_force(parser, '--out')


def _train(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_work_dir(parser)
    parser.add_argument(
        '--resume', action='store_true', help='go on from the newest checkpoint in the work dir'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision; needs a GPU')
    _add_options(parser)
    _add_launcher(parser)


def _test(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_checkpoint(parser)
    _add_work_dir(parser)
    parser.add_argument(
        '--tau-test',
        type=float,
        metavar='TAU',
        help='how the scores of an LTMI head are read, 0 natural and 1 balanced, whatever '
        "operating point the config or the checkpoint has; default: the config's",
    )
    parser.add_argument(
        '--operating-point',
        metavar='FILE',
        help="file of mmseg-ltmi choose; default: the config's, or what the checkpoint holds",
    )
    parser.add_argument(
        '--per-class', metavar='FILE', help='write a row per class to this .json or .csv file'
    )
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        help='write the predicted label maps here; a split without labels is not judged then',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', metavar='FOLDER', help='write images of predictions here')
    parser.add_argument(
        '--wait-time', type=float, default=2, metavar='S', help='seconds of --show; default: 2'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    _add_options(parser)
    _add_launcher(parser)


COUNT = """
The counts of each image are kept beside --out, in NAME.counts.txt: a run that was stopped goes on
where it was, and a later one reads only label files that are new or changed."""


def _count(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='JSON to write')
    _add_split(parser, 'train')
    parser.add_argument(
        '--plot', type=Path, metavar='FILE', help=f'{PICTURE}; default: beside --out'
    )
    parser.add_argument(
        '--workers', type=int, default=2, metavar='N', help='processes, 0 for none; default: 2'
    )
    parser.add_argument('--strict', action='store_true', help='stop at the first bad label file')
    _add_force(parser, '--out')
    parser.add_argument('--no-cache', action='store_true', help='count every image, keep nothing')
    parser.add_argument(
        '--as-trained',
        type=int,
        metavar='N',
        help='count N samples as the pipeline crops and resizes them; default: the raw labels',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the samples of --as-trained; default: 0'
    )
    _add_options(parser)


MEMORY = """
A second opinion for the classifier: each test pixel is compared with stored pixels of the train
set, in the embedding of the contrastive term, or in the network's own features where there is none.
mmseg-ltmi choose --memory FILE measures what that is worth and at which weight. A run that was
stopped goes on with the same command."""


def _memory(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_checkpoint(parser)
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help=f'default: {MEMORY_FILE} beside the checkpoint',
    )
    _add_split(parser, 'train')
    parser.add_argument(
        '--per-class',
        type=_positive,
        default=256,
        metavar='N',
        help='pixels that are drawn of each class; default: 256',
    )
    parser.add_argument(
        '--per-image',
        type=_positive,
        default=8,
        metavar='N',
        help='of these, pixels of one image at most; default: 8',
    )
    parser.add_argument(
        '--centers',
        type=_whole_number,
        default=16,
        metavar='K',
        help='keys of each class, which k-means makes of its pixels, 0 for every pixel; '
        'default: 16',
    )
    parser.add_argument(
        '--features',
        choices=('auto', 'embedded', 'raw'),
        default='auto',
        help='embedded by the contrastive term, or raw; default: embedded, where there is that '
        'term',
    )
    parser.add_argument(
        '--from-queue',
        action='store_true',
        help="read no image and take the keys of training's queue: --per-class, --per-image and "
        '--split do nothing then',
    )
    parser.add_argument(
        '--temperature',
        type=float,
        metavar='T',
        help='default: what the contrastive term has learned; for raw features the one at which '
        'the stored pixels read each other best',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the draw and of k-means; default: 0'
    )
    _add_force(parser, '--out')
    _add_options(parser)
    _add_launcher(parser)


CHOOSE = """
Natural argmax, a tau_test, or the IoU rule: measures 21 values of tau_test and fits the IoU rule in
one pass over the selection split, and measures all of them in one pass over the report split. With
--folds K both are one split: chosen on K-1 blocks of images and measured on the other, in turn; by
default, in 5 blocks, where both splits have the same images (ADE20K, Cityscapes). Writes
operating_point.json (for mmseg-ltmi test --operating-point), curves.png, a file of rows per class
for each of them (per_class/NAME.json), and a checkpoint that holds the choice (--embed)."""


def _choose(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_checkpoint(parser)
    parser.add_argument(
        '--select', choices=SPLITS, default='val', help='split that chooses; default: val'
    )
    parser.add_argument(
        '--report', choices=SPLITS, default='test', help='split that judges; default: test'
    )
    parser.add_argument(
        '--folds',
        type=_whole_number,
        metavar='K',
        help='cross-fit on the report split, 1 for two splits as they are; default: 5 where both '
        'splits have the same images, else 1',
    )
    parser.add_argument(
        '--choose',
        choices=CHOICES,
        default='auto',
        help='the reading that is written; all are measured. default: auto, the one with the best '
        'cross-fitted mIoU on the selection split, at its class frequencies and at those of the '
        'prior',
    )
    parser.add_argument(
        '--memory', type=Path, metavar='FILE', help='of mmseg-ltmi memory: measure its weights too'
    )
    parser.add_argument(
        '--rankseg', action='store_true', help='measure the peer RankSEG too (package rankseg)'
    )
    _add_class_prior(parser)
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FOLDER',
        help='default: operating_point in the --work-dir, or else beside the checkpoint',
    )
    parser.add_argument(
        '--embed', type=Path, metavar='FILE', help='write a checkpoint that holds the choice'
    )
    _add_force(parser, '--out and --embed')
    parser.add_argument(
        '--max-values',
        type=_positive,
        default=2**25,
        metavar='N',
        help='posteriors kept for the fit of the IoU rule; default: 2**25',
    )
    parser.add_argument('--work-dir', type=Path, metavar='FOLDER', help='where --out is by default')
    _add_options(parser)


COMPARE = """
A run is a work dir (its newest per_class.json counts) or a per_class.json / .csv file. Runs whose
names differ by a seed at the end only (-seed0, _s1) form one row, with a 95 % interval. Differences
are to the first run, paired by seed."""


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('runs', nargs='+', metavar='RUN', type=Path)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/comparison'),
        metavar='FOLDER',
        help='default: work_dirs/comparison',
    )
    parser.add_argument(
        '--seed-pattern',
        type=_regex,
        metavar='REGEX',
        help='its group is the seed; default: -seed0, _s1 and the like',
    )
    parser.add_argument(
        '--reading',
        default='',
        help='natural, tau_by_mIoU, IoU_rule, ...: as mmseg-ltmi choose has read the runs; '
        'default: their newest per_class file',
    )


BROWSE = """
Input, label and predictions side by side. One config with one or two checkpoints; for a second
model of another config give --other-config."""


def _browse(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument('checkpoints', nargs='+', metavar='CHECKPOINT')
    parser.add_argument(
        '--other-config', metavar='CONFIG', help='of the second checkpoint; default: CONFIG'
    )
    _add_split(parser, 'test')
    _add_class_prior(parser)
    parser.add_argument(
        '--classes', nargs='+', metavar='CLASS', help='classes to look for; default: the tail'
    )
    parser.add_argument(
        '--num-images', type=_positive, default=8, metavar='N', help='at most; default: 8'
    )
    parser.add_argument(
        '--tau-test',
        type=float,
        default=0.0,
        metavar='TAU',
        help='how the scores are read, 0 natural and 1 balanced; default: 0',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help=f'{PICTURE}; default: tail.png beside the (first) checkpoint',
    )
    _add_force(parser, '--out')
    parser.add_argument('--device', help='default: cuda, where there is one')
    _add_options(parser)


EXPLAIN = """
The decision is the natural one, or that of --operating-point. Rarest class first. 'predicted' is
a class's predicted pixels over its labelled ones: near 0 it is never predicted. 'missed' is the
share of its pixels that are predicted as others, 'false' that of its predictions that are others'
pixels; 'near' is the share of both kinds of error that lie at most --width pixels from where the
label changes, and 'IoU away' leaves those pixels out."""


def _explain(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_checkpoint(parser)
    _add_split(parser, 'test')
    parser.add_argument(
        '--width',
        type=int,
        default=3,
        metavar='N',
        help='pixels on each side of a boundary; default: 3',
    )
    _add_class_prior(parser)
    parser.add_argument(
        '--operating-point', metavar='FILE', help='of mmseg-ltmi choose; default: natural'
    )
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the figures to this .json file'
    )
    parser.add_argument(
        '--memory',
        type=Path,
        metavar='FILE',
        help='of mmseg-ltmi memory: draw test pixels of the rare classes beside the stored pixels '
        'that are nearest to them',
    )
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE',
        help=f'{PICTURE}, of --memory; default: NAME.png beside it',
    )
    parser.add_argument(
        '--classes', nargs='+', metavar='CLASS', help='classes of that page; default: the tail'
    )
    _add_force(parser, '--json and --page')
    # Earlier versions kept a log there. Nothing is written now.
    parser.add_argument('--work-dir', help=argparse.SUPPRESS)
    _add_options(parser)


CONVERT = """
What an LTMI head adds to its scores at inference is a constant per class; it goes into the bias of
conv_seg, and what only training needs (queue, projections, temperature, a moving-average teacher,
optimizer) is left out. The predictions stay the same."""


def _convert(parser: argparse.ArgumentParser) -> None:
    _add_checkpoint(parser)
    parser.add_argument('out', type=Path, metavar='OUT')
    parser.add_argument(
        '--tau-test',
        type=float,
        default=0.0,
        metavar='TAU',
        help='operating point of the stock head, 0 natural and 1 balanced; default: 0',
    )
    _add_force(parser, 'OUT')


CONVERT_LABELS = """
mmsegmentation reads label maps: a PNG of one channel whose pixels are class indices. The masks may
be of colours or grey (such as 0 and 255); the files keep their names. PALETTE is a data set whose
colours mmsegmentation knows (cityscapes, ade, voc, ...), or a JSON file with the colours of the
classes in their order: [[0, 0, 0], [255, 255, 255]]."""


def _convert_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('masks', type=Path, metavar='MASKS', help='folder')
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write')
    parser.add_argument('--palette', required=True, metavar='NAME|FILE', help='of the classes')
    parser.add_argument(
        '--suffix', default='.png', metavar='END', help='of the names of masks; default: .png'
    )
    parser.add_argument(
        '--ignore-others', action='store_true', help='other colours become 255, which is ignored'
    )
    _add_force(parser, 'OUT')


RUN = """
For scripts that import mmsegmentation and not this package, such as mmsegmentation's own tools:
with mmcv-lite they would end with "No module named 'mmcv._ext'". On several GPUs:
torchrun --nproc-per-node GPUS -m mmseg_ltmi run SCRIPT ..."""


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('script', metavar='SCRIPT', type=_file)
    parser.add_argument(
        'arguments', nargs=argparse.REMAINDER, metavar='...', help='what the script is given'
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config', metavar='CONFIG', help="a .py, .json or .yaml file, or 'PACKAGE::FILE'"
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a .pth file')


def _add_split(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        '--split', choices=SPLITS, default=default, help=f'of the data; default: {default}'
    )


def _add_class_prior(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--class-prior',
        metavar='NAME|FILE',
        help='default: that of the model, or else of a metric of the config',
    )


def _add_force(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument('--force', action='store_true', help=f'replace an existing {what}')


def _add_work_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--work-dir',
        metavar='FOLDER',
        help="logs and checkpoints; default: the config's, or work_dirs/NAME of the config",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        type=_key_and_value,
        metavar='KEY=VALUE',
        help='values of the config by dotted key; a list is KEY="[a,b]", without spaces, and a '
        'text with commas is KEY="\'a,b\'"',
    )


def _add_launcher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='what starts the processes; default: none',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def _key_and_value(text: str) -> str:
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'{text!r} is not KEY=VALUE')
    return text


def _file(text: str) -> str:
    if not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f'there is no file {text}')
    return text


def _whole_number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError('takes a whole number')
    return int(text)


def _regex(text: str) -> re.Pattern:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no regular expression: {error}') from error


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError('takes 1 or more')
    return int(text)
