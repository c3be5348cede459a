"""SegFormer of Hugging Face transformers, trained for rare classes; OpenMMLab is not needed.

    python examples/huggingface_segformer.py                # small, random weights, LongTailShapes
    python examples/huggingface_segformer.py --data data/camvid11 --weights DIR

DIR is a folder of local files, as save_pretrained writes them: of a whole model, or of an encoder
such as nvidia/mit-b0. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from any_torch_model import train
from label_folder import load_data, options, print_scores
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from mmseg_ltmi.core import ScoreReader

CLASSIFIER = 'segformer.decode_head.classifier'
READER = 'score_reader.pth'


class FullSizeScores(nn.Module):
    """SegFormer as a network that the method's loss takes.

    Transformers' own loss is not asked for: no labels are given to the network.

    Args:
        segformer: its scores have a quarter of the image's height and width.

    Shape:
        (B, 3, H, W) to (B, C, H, W).
    """

    def __init__(self, segformer: SegformerForSemanticSegmentation) -> None:
        super().__init__()
        self.segformer = segformer

    def forward(self, images: Tensor) -> Tensor:
        scores = self.segformer(pixel_values=images).logits
        return F.interpolate(scores, images.shape[2:], mode='bilinear')


def build(num_classes: int, weights: Path | None) -> FullSizeScores:
    """SegFormer with weights of local files, or a small one with random weights."""
    if weights is None:
        config: Any = SegformerConfig(
            num_labels=num_classes,  # type: ignore[call-arg]
            depths=[1, 1, 1, 1],
            hidden_sizes=[16, 32, 64, 128],
            decoder_hidden_size=64,
        )
        return FullSizeScores(SegformerForSemanticSegmentation(config))
    segformer = SegformerForSemanticSegmentation.from_pretrained(
        weights, num_labels=num_classes, ignore_mismatched_sizes=True, local_files_only=True
    )
    return FullSizeScores(segformer)


def load(folder: Path) -> nn.Sequential:
    """The model of a saved folder: its scores (B, C, H, W) are the natural log-posterior."""
    segformer = SegformerForSemanticSegmentation.from_pretrained(folder, local_files_only=True)
    config: Any = segformer.config
    reader = ScoreReader(config.num_labels)
    reader.load_state_dict(torch.load(folder / READER, map_location='cpu', weights_only=True))
    return nn.Sequential(FullSizeScores(segformer), reader).eval()


def main() -> None:
    parser = options(__doc__, steps=400, out='work_dirs/huggingface_segformer')
    parser.add_argument('--weights', type=Path, help='folder of local weights; else random ones')
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    data = load_data(args)
    network = build(data.prior.num_classes, args.weights)
    # Pretrained weights want a smaller step.
    learning_rate = 1e-3 if args.weights is None else 1e-4
    reader = train(network, data, args, learning_rate, CLASSIFIER)
    print_scores(nn.Sequential(network, reader), data, args.device)
    network.segformer.save_pretrained(args.out)
    torch.save(reader.state_dict(), args.out / READER)
    print(f'saved {args.out}')


if __name__ == '__main__':
    main()
