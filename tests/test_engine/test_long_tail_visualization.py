"""LongTailVisualizationHook, through a Runner with a local backend."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from PIL import Image
from ranks import run_ranks
from tiny import demo_run

from mmseg_ltmi.apis.config_changes import set_cpu_processes
from mmseg_ltmi.engine import LongTailVisualizationHook
from mmseg_ltmi.engine.hooks import long_tail_visualization_hook as hook_module
from mmseg_ltmi.engine.hooks.rare_images import RareImages
from mmseg_ltmi.visualization import queue_plots
from mmseg_ltmi.visualization.canvas import colours


def validate(cfg, interval):
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader = dict(
        batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(cfg.train_dataloader.dataset, split='val', num_images=4, pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')
        ]),
    )  # fmt: skip
    cfg.val_cfg, cfg.train_cfg.val_interval = dict(type='ValLoop'), interval
    cfg.val_evaluator = dict(type='LongTailIoUMetric', per_class_file=None)


def run(folder, steps=2, stock=False, train=True, **options):
    """A short run that validates once at its end, and the pictures by name."""
    cfg = demo_run(folder, steps)
    if stock:
        cfg.model.decode_head.update(type='FCNHead', loss_decode=dict(type='CrossEntropyLoss'))
        del cfg.model.decode_head['contrast']
    cfg.log_level = 'WARNING'
    validate(cfg, steps)
    cfg.visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
    cfg.custom_hooks += [dict(type='LongTailVisualizationHook', **options)]
    if is_distributed():
        set_cpu_processes(cfg)
        cfg.launcher = 'pytorch'
    runner = RUNNERS.build(cfg) if is_distributed() else Runner.from_cfg(cfg)
    if train:
        runner.train()
    else:
        runner.val()
    found = {path.stem: path for path in Path(folder).rglob('vis_image/*.png')}
    return runner, {name: np.asarray(Image.open(path)) for name, path in found.items()}


def share_of(picture, colour):
    wanted = np.array(list(bytes.fromhex(colour[1:])))
    return float((np.abs(picture.astype(int) - wanted).max(2) <= 2).mean())


def test_rare_classes_and_queue_are_drawn(tmp_path, monkeypatch):
    drawn = {}
    for name in ('draw_tail_page', 'plot_queue_use', 'plot_embeddings'):
        original = getattr(hook_module, name)

        def spy(*args, name=name, original=original, **kwargs):
            drawn[name] = args
            original(*args, **kwargs)

        monkeypatch.setattr(hook_module, name, spy)
    runner, pictures = run(tmp_path / 'run', queue_histogram=True, embeddings=True, num_images=3)
    assert set(pictures) == {'rare_classes_2', 'queue_use_2', 'queue_embeddings_2'}
    # The images hold rare classes, whose colours are in the picture.
    images, rare, names, *_ = drawn['draw_tail_page']
    head = runner.model.decode_head
    assert 1 <= len(images) <= 3 and len(names) == head.num_classes
    assert rare == list(reversed(head.contrast.prior.class_prior.groups().tail))
    palette = dict(zip(rare, colours(len(rare)), strict=True))
    held = {c for image in images for c in rare if (image.maps['label'] == c).any()}
    assert held
    for c in held:
        assert share_of(pictures['rare_classes_2'], palette[c]) > 0
    height, width = pictures['rare_classes_2'].shape[:2]
    assert width == 3 * 374 and height > len(images) * 300
    # The histogram's numbers are those of the queue.
    use, slots, *_ = drawn['plot_queue_use']
    labels = head.contrast.queue.labels
    assert use == [int((labels == c).sum()) for c in range(head.num_classes)] and sum(use) > 0
    assert slots == head.contrast.queue.room.tolist()
    # The view's points are the queue's keys, and as many queries as a step has.
    keys, key_labels, queries, query_labels, *_ = drawn['plot_embeddings']
    assert torch.equal(keys, head.contrast.queue.samples[labels >= 0])
    assert torch.equal(key_labels, labels[labels >= 0])
    assert len(queries) == len(query_labels) <= 64 and torch.allclose(
        queries.norm(dim=1), torch.ones(len(queries))
    )
    for picture in pictures.values():
        assert picture.std() > 1  # not blank


@HOOKS.register_module()
class NoteLosses(Hook):
    seen: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append(outputs['loss'].item())


def test_it_changes_no_training_step(tmp_path):
    losses = []
    for name, options in (('off', dict(interval=9)), ('on', dict(embeddings=True))):
        cfg = demo_run(tmp_path / name, 2)
        validate(cfg, 1)
        hook = dict(type='LongTailVisualizationHook', **options)
        cfg.custom_hooks += [hook, dict(type='NoteLosses')]
        NoteLosses.seen = []
        Runner.from_cfg(cfg).train()
        losses.append(NoteLosses.seen)
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_a_stock_head_has_no_queue(tmp_path):
    asked = dict(stock=True, queue_histogram=True, embeddings=True)
    _, pictures = run(tmp_path / 'stock', class_prior=list(range(13, 0, -1)), **asked)
    assert set(pictures) == {'rare_classes_2'}
    assert log_of(tmp_path / 'stock').count('no contrast, so there is no queue') == 1
    _, pictures = run(tmp_path / 'no prior', **asked)
    assert not pictures and log_of(tmp_path / 'no prior').count('give the hook class_prior=') == 1


def work(rank, world, folder):
    os.environ['LOCAL_RANK'] = str(rank)  # mmengine asks for it
    drawn = []
    for name in ('draw_tail_page', 'plot_queue_use', 'plot_embeddings'):
        original = getattr(hook_module, name)
        setattr(hook_module, name, lambda *a, f=original, **k: (drawn.append(f), f(*a, **k)))
    run(Path(folder) / 'run', queue_histogram=True, embeddings=True)
    assert len(drawn) == (3 if rank == 0 else 0)


def test_the_first_of_two_ranks_draws(tmp_path):
    run_ranks(work, 2, tmp_path)
    assert len(list(tmp_path.rglob('vis_image/*.png'))) == 3


def log_of(folder):
    return ''.join(path.read_text() for path in Path(folder).rglob('*.log'))


def test_a_queue_without_a_training_step_shows_what_it_holds(tmp_path):
    asked = dict(queue_histogram=True, embeddings=True, class_prior=list(range(13, 0, -1)))
    _, pictures = run(tmp_path / 'val', train=False, **asked)
    assert set(pictures) == {'rare_classes_0', 'queue_use_0'}
    assert 'too few keys' in log_of(tmp_path / 'val')


def sample_of(label):
    sample = SegDataSample(metainfo=dict(img_path='x.png'))
    sample.gt_sem_seg = sample.pred_sem_seg = PixelData(data=label)
    return sample


@pytest.mark.parametrize('rare, number', [([0, 3], 1), ([0], 0)])
def test_an_ignored_class_is_not_looked_for(rare, number):
    """However much of it an image has."""
    kept = RareImages(rare, 1, max_side=8, ignore_index=0)
    for label in (torch.zeros(1, 8, 8).long(), torch.ones(1, 8, 8).long()):
        label[0, 0, 0] = 3 * label[0, 0, 1]
        kept.add(torch.zeros(3, 8, 8, dtype=torch.uint8), sample_of(label))
    assert [int(image.maps['label'][0, 0]) for image in kept.best()] == [3] * number


def test_few_images_are_kept():
    generator = np.random.default_rng(0)
    kept, counts = RareImages([3, 2], 2, max_side=8), []
    for _ in range(40):
        label = torch.from_numpy(generator.choice(4, (1, 16, 12), p=[0.5, 0.4, 0.07, 0.03]))
        label[0, 0] = 255
        counts.append([int((label == c).sum()) for c in (3, 2)])
        kept.add(torch.zeros(3, 16, 12, dtype=torch.uint8), sample_of(label))
        assert len(kept._kept) <= 4
    of_rarest, of_next = (max(column) for column in zip(*counts, strict=True))
    assert kept._kept[0][0][0] == of_rarest
    assert of_next in [found[1] for found, _ in kept._kept]
    best = kept.best()
    assert len(best) == 2 and best[0].image.shape == (8, 6, 3)
    assert set(best[0].maps) == {'label', 'prediction'}


def test_principal_plane_is_that_of_the_singular_vectors():
    points = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(6, 0, -1)
    state = torch.get_rng_state()
    found, share = queue_plots.principal_plane(points)
    assert torch.equal(torch.get_rng_state(), state)
    centred = points - points.mean(0)
    _, size, axes = torch.linalg.svd(centred, full_matrices=False)
    for i in range(2):
        cosine = torch.cosine_similarity(found[:, i], centred @ axes[i], dim=0)
        assert cosine.abs() == pytest.approx(1, abs=1e-3)
    expected = size.square() / size.square().sum()
    assert share == pytest.approx(expected[:2].tolist(), abs=1e-3)
    with pytest.raises(ValueError, match='span no plane'):
        queue_plots.principal_plane(points[:2])


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match='num_images is 0'):
        LongTailVisualizationHook(num_images=0)
    with pytest.raises(ValueError, match="unknown names .*'unicorn'"):
        run(tmp_path / 'run', train=False, classes=['unicorn'])
