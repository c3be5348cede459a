import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import MODELS, TRANSFORMS

import mmseg_ltmi  # noqa: F401

SCALES = iter(())


@TRANSFORMS.register_module(force=True)
class NextBrightness:
    def __call__(self, results):
        results['img'] = np.full_like(results['img'], next(SCALES))
        return results


def results():
    return dict(
        img=np.zeros((4, 6, 3), np.uint8), gt_seg_map=np.ones((4, 6), np.uint8), img_shape=(4, 6)
    )


def test_both_views_are_packed_and_normalized():
    global SCALES
    SCALES = iter((20, 10))
    pack = TRANSFORMS.build(
        dict(type='PackTwoViews', photometric=[dict(type='NextBrightness')], meta_keys=())
    )
    packed = pack(results())
    assert (packed['inputs'] == 10).all()
    view = packed['data_samples'].second_view.data
    assert (view == 20).all() and view.shape == (3, 4, 6) and view.dtype == torch.uint8

    preprocessor = MODELS.build(
        dict(type='SegDataPreProcessor', mean=[0] * 3, std=[2] * 3, size=(8, 8))
    )
    data = preprocessor(pseudo_collate([packed]), training=True)
    from mmseg_ltmi.models.segmentors.teacher_view import second_view

    second = second_view(data['inputs'], data['data_samples'], preprocessor)
    assert (second[:, :, :4, :6] == 10).all() and second.shape == data['inputs'].shape
    assert data['data_samples'][0].gt_sem_seg.data.shape == (1, 8, 8)  # padded once


def test_default_is_photometric_and_moving_pixels_is_refused():
    np.random.seed(0)
    image = results()
    image['img'] = np.full((4, 6, 3), 100, np.uint8)
    packed = TRANSFORMS.build(dict(type='PackTwoViews', meta_keys=()))(image)
    assert (packed['inputs'] != packed['data_samples'].second_view.data).any()
    crop = dict(type='RandomResize', scale=(40, 60), ratio_range=(0.5, 2.0), keep_ratio=True)
    pack = TRANSFORMS.build(dict(type='PackTwoViews', photometric=[crop]))
    with pytest.raises(ValueError, match='belong before it'):
        for _ in range(5):
            pack(results())
