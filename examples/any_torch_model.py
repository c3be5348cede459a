"""A network of plain PyTorch, trained for rare classes; OpenMMLab is not needed.

    python examples/any_torch_model.py                      # on LongTailShapes, drawn on first use
    python examples/any_torch_model.py --data data/camvid11 --size 180 240

The network knows nothing of the method: FeatureRecorder takes the pixel features from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from label_folder import Data, batches, load_data, options, print_scores
from torch import Tensor, nn

from mmseg_ltmi.core import FeatureRecorder, LTMILoss, PixelContrast, ScoreReader


class SmallUNet(nn.Module):
    """Three scales with skip connections, then a 1x1 convolution.

    Args:
        num_classes: C.
        width: channels at the finest scale.

    Shape:
        (B, 3, H, W) to (B, C, H, W).
    """

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        one, two, four = width, 2 * width, 4 * width
        self.down = nn.ModuleList([_block(3, one), _block(one, two), _block(two, four)])
        self.up = nn.ModuleList([_block(four + two, two), _block(two + one, one)])
        self.classifier = nn.Conv2d(one, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = [self.down[0](images)]
        for block in self.down[1:]:
            maps.append(block(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for block in self.up:
            skip = maps.pop()
            x = F.interpolate(x, skip.shape[2:], mode='bilinear')
            x = block(torch.cat([x, skip], 1))
        return self.classifier(x)


def _block(in_channels: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (in_channels, channels):
        convolution = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)


def train(
    network: nn.Module,
    data: Data,
    args: argparse.Namespace,
    learning_rate: float = 2e-3,
    classifier: str | None = None,
) -> ScoreReader:
    """Train any network with the method.

    Args:
        network: images (B, 3, H, W) to raw scores (B, C, H, W).
        data: what it is trained on.
        args: of the command line.
        learning_rate: at the start.
        classifier: the layer that classifies; None takes the last convolution.

    Returns:
        what reads the network's scores.
    """
    num_classes, device = data.prior.num_classes, args.device
    criterion = LTMILoss(data.prior).to(device)
    recorder = FeatureRecorder(network.to(device).train(), classifier)
    contrast = PixelContrast(recorder.channels, num_classes, data.prior).to(device)
    # The contrastive term has weights of its own: a projection and a temperature.
    parameters = [*network.parameters(), *contrast.parameters()]
    optimizer = torch.optim.AdamW(parameters, learning_rate)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, args.steps, power=0.9)

    for step, (images, labels) in enumerate(batches(data.train, args.batch_size, args.steps), 1):
        labels = labels.to(device)
        loss_seg = criterion(network(images.to(device)), labels)
        loss_contrast = contrast(recorder.features, labels)['loss_contrast']
        optimizer.zero_grad()
        (loss_seg + loss_contrast).backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step in (1, args.steps):
            print(f'step {step}: loss {loss_seg.item():.3f} + {loss_contrast.item():.3f}')

    recorder.close()
    reader = ScoreReader(num_classes).to(device)
    reader.update(criterion.natural_shift(), criterion.log_prior)
    return reader


def load(path: str | Path) -> nn.Sequential:
    """The model of a saved file: its scores (B, C, H, W) are the natural log-posterior."""
    state = torch.load(path, map_location='cpu', weights_only=True)
    num_classes = len(state['1.log_prior'])
    model = nn.Sequential(SmallUNet(num_classes), ScoreReader(num_classes))
    model.load_state_dict(state)
    return model.eval()


def main() -> None:
    args = options(__doc__, steps=400, out='work_dirs/any_torch_model.pth').parse_args()
    torch.manual_seed(args.seed)
    data = load_data(args)
    network = SmallUNet(data.prior.num_classes)
    model = nn.Sequential(network, train(network, data, args))
    print_scores(model, data, args.device)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    # With the reader in it, the file says itself what its scores mean.
    torch.save(model.state_dict(), args.out)
    print(f'saved {args.out}')


if __name__ == '__main__':
    main()
