"""CIFAR-100-LT, the benchmark of the paper, on the core alone.

    python examples/cifar100_lt.py --data DATA --method la --depth 56 --out teacher
    python examples/cifar100_lt.py --data DATA --teacher teacher/last.pth --out student

For the second, Suh & Seo (ICML 2023, arXiv 2305.01160) state 53.0 %. A run that was stopped goes on
with the same command. docs/experiments/cifar100_lt.md has the data, the recipe and the results.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from pathlib import Path

import torch
from cifar_augment import augment
from cifar_data import group_accuracies, long_tail, read_split
from cifar_resnet import ResNet
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmseg_ltmi.core import DistillationLoss, GMLLoss, LogitAdjustedLoss, ScoreReader
from mmseg_ltmi.core.contrast import ClassQueue, ProjectionHead


class ImageQueue(ClassQueue):
    """A queue that remembers of which image a sample is, for longer than the step."""

    def enqueue(self, samples: Tensor, labels: Tensor, ids: Tensor) -> None:
        before = self.ids.clone()
        super().enqueue(samples, labels, ids)
        self.ids.copy_(self.ids.where(self.ids >= 0, before))


class Method(nn.Module):
    """A network and all that its training needs; its state is what a checkpoint holds.

    Args:
        counts: (C,), images of each class in the train split.
        args: of the command line.

    Attributes:
        key_network: what the contrast samples come from, and scores to imitate; None if it is the
            network itself.
    """

    def __init__(self, counts: Tensor, args: argparse.Namespace) -> None:
        super().__init__()
        num_classes = len(counts)
        self.network = ResNet(num_classes, args.depth)
        self.criterion = LogitAdjustedLoss(counts, tau=0.0 if args.method == 'ce' else 1.0)
        self.reader = ScoreReader(num_classes)
        self.reader.update(self.criterion.natural_shift(), self.criterion.log_prior)
        self.key_network: nn.Module | None = None
        self.contrasts = args.method == 'ltmi'
        if not self.contrasts:
            return
        self.projector = ProjectionHead(64, 32)
        if args.projection == 'batchnorm':
            self.projector.insert(1, nn.BatchNorm1d(64))
        self.key_projector = copy.deepcopy(self.projector)
        self.queue = ImageQueue(num_classes, 64, size=4096, min_per_class=2)
        self.queue.allocate(counts)
        self.contrast = GMLLoss(num_classes, temperature=0.1, loss_weight=1.0)
        self.distillation = DistillationLoss(temperature=4.0, loss_weight=1.0)
        self.register_buffer('teacher_shift', torch.zeros(num_classes))
        if args.keys == 'ema':
            # It stays in training mode: from random weights, averaged statistics come too late.
            self.key_network = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.999))
        elif args.keys == 'teacher':
            saved = torch.load(args.teacher, map_location='cpu', weights_only=True)
            state = saved['method']
            self.key_network = ResNet(num_classes, saved['args']['depth'])
            self.key_network.eval().load_state_dict(
                {k[8:]: v for k, v in state.items() if k.startswith('network.')}
            )
            # Raw scores of cross-entropy mean something else than those of logit adjustment.
            self.teacher_shift = state['reader.natural_shift'] - self.reader.natural_shift
        if self.key_network is not None:
            self.key_network.requires_grad_(False)

    @property
    def num_views(self) -> int:
        """For the classifier; for queries; for the keys of another network."""
        return 1 + self.contrasts + (self.key_network is not None)

    def losses(self, views: list[Tensor], labels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """The terms of a step, to be summed.

        Args:
            views: ``num_views`` times uint8 (B, 3, 32, 32).
            labels: int64 (B,).
            ids: int64 (B,), which images of the train split they are.
        """
        size = len(labels)
        if isinstance(self.key_network, AveragedModel):
            self.key_network.update_parameters(self.network)
        scores, features = self.network(torch.cat(views[:2]))
        terms = {'loss_sup': self.criterion(scores[:size], labels)}
        if not self.contrasts:
            return terms
        samples = query = features[size:]
        if self.key_network is not None:
            with torch.no_grad():
                taught, samples = self.key_network(torch.cat(views[::2]))
            taught, samples = taught[:size] + self.teacher_shift, samples[size:]
            terms['loss_distill'] = self.distillation(scores[:size], taught, labels)
        self.queue.enqueue(samples, labels, ids)
        key, key_labels, key_ids = self.queue.read()
        # What waits in the queue is embedded anew, so that gradient reaches the projector.
        query, key = self.projector(query), self.key_projector(key)
        prior = self.criterion.log_prior
        terms['loss_contrast'] = self.contrast(
            query, labels, key, key_labels, prior, query_ids=ids, key_ids=key_ids
        )
        return terms


def train_epoch(
    method: Method, optimizer: torch.optim.Optimizer, train: tuple[Tensor, Tensor], batch_size: int
) -> dict[str, float]:
    """One pass over the images, shuffled, without a last small batch; the mean of each term."""
    images, labels = train
    order = torch.randperm(len(images)).to(images.device)
    labels = labels[order]
    # The views of the whole epoch at once: no step waits for the draws.
    views = [augment(images[order]) for _ in range(method.num_views)]
    steps, sums = len(images) // batch_size, dict[str, Tensor]()
    method.network.train()
    for step in range(steps):
        part = slice(step * batch_size, (step + 1) * batch_size)
        terms = method.losses([view[part] for view in views], labels[part], order[part])
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term.detach() / steps
    if method.contrasts:
        sums['temperature'] = method.contrast.temperature
    return {name: round(float(value), 4) for name, value in sums.items()}


@torch.no_grad()
def evaluate(method: Method, test: tuple[Tensor, Tensor], counts: Tensor) -> dict[str, float]:
    """Accuracy in percent on the test split by both readings, as ``balanced_few`` and the like."""
    method.network.eval()
    result = {}
    images, labels = test
    scores = [method.network(part)[0].clone() for part in images.split(500)]
    for reading, method.reader.tau_test in (('balanced', 1.0), ('natural', 0.0)):
        correct = method.reader.classes(torch.cat(scores)) == labels
        for group, value in group_accuracies(correct, labels, counts).items():
            result[f'{reading}_{group}'] = value
    return result


def learning_rate(epoch: int, epochs: int) -> float:
    """0.1 after a warm-up of 5 epochs or a tenth of all, a tenth at 80 % and again at 90 %."""
    drops = (10 * epoch >= 8 * epochs) + (10 * epoch >= 9 * epochs)
    return 0.1 * min(1, (epoch + 1) / max(min(5, epochs // 10), 1)) * 0.1**drops


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--data', type=Path, required=True, help='folder with train and test, .npz or .bin')
    add('--imbalance', type=float, help='of the part of train to take; all of it by default')
    add('--method', choices=('ce', 'la', 'ltmi'), default='ltmi')
    add('--depth', type=int, default=32, help='of the ResNet: 32, or 56 for a teacher')
    add('--teacher', type=Path, help="another run's last.pth, for ltmi")
    add('--keys', choices=('self', 'ema', 'teacher'), help="the teacher's, or else its own (self)")
    add('--projection', choices=('batchnorm', 'plain'), default='batchnorm')
    add('--epochs', type=int, default=200)
    add('--batch-size', type=int, default=128)
    add('--seed', type=int, default=0)
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--compile', choices=('default', 'reduce-overhead'), help='by torch.compile, in this mode')
    add('--out', type=Path, required=True, help='folder of last.pth and log.csv')
    args = parser.parse_args(arguments)
    args.keys = args.keys or ('teacher' if args.teacher else 'self')
    if (args.keys == 'teacher') != (args.teacher is not None):
        parser.error('--teacher and --keys teacher go together')
    return args


def main(arguments: list[str] | None = None) -> None:
    args = options(arguments)
    torch.backends.cudnn.benchmark = True
    train, test = (read_split(args.data, split) for split in ('train', 'test'))
    if args.imbalance:
        part = long_tail(train[1], args.imbalance)
        train = train[0][part], train[1][part]
    train, test = ((x.to(args.device), y.to(args.device)) for x, y in (train, test))
    counts = train[1].bincount()
    torch.manual_seed(args.seed)
    method = Method(counts.cpu(), args).to(args.device)
    weights = dict(method.named_parameters())
    temperature = [weights.pop(name) for name in list(weights) if 'log_temperature' in name]
    optimizer = torch.optim.SGD(weights.values(), 0.1, momentum=0.9, weight_decay=5e-4)
    optimizer.add_param_group({'params': temperature, 'weight_decay': 0.0})

    rows: list[dict[str, float]] = []
    names = ('imbalance', 'method', 'depth', 'keys', 'projection', 'epochs', 'batch_size', 'seed')
    settings = {name: getattr(args, name) for name in names}
    last = args.out / 'last.pth'
    if last.is_file():
        saved = torch.load(last, map_location=args.device, weights_only=True)
        if saved['args'] != settings:
            raise SystemExit(f'{last} is of a run with {saved["args"]}: give another --out')
        method.load_state_dict(saved['method'])
        optimizer.load_state_dict(saved['optimizer'])
        rows = saved['rows']
    if args.compile:
        for network in filter(None, (method.network, method.key_network)):
            network.compile(mode=args.compile)

    args.out.mkdir(parents=True, exist_ok=True)
    for epoch in range(len(rows), args.epochs):
        start = time.perf_counter()
        torch.manual_seed(10000 * args.seed + epoch)  # a run that goes on draws the same
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(epoch, args.epochs)
        row = {'epoch': epoch + 1, **train_epoch(method, optimizer, train, args.batch_size)}
        rows.append(row | evaluate(method, test, counts))
        print(*(f'{k} {v}' for k, v in rows[-1].items()), f'{time.perf_counter() - start:.0f} s')
        state = {'method': method.state_dict(), 'optimizer': optimizer.state_dict()}
        torch.save({'args': settings, 'rows': rows, **state}, last.with_suffix('.new'))
        last.with_suffix('.new').replace(last)  # so that a stop in between leaves a whole file
        with (args.out / 'log.csv').open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    print('last:', rows[-1])
    print('best:', max(rows, key=lambda row: row['balanced_all']))


if __name__ == '__main__':
    main()
