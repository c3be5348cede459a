"""What docs/export.md shows runs as it stands there, and gives what the LTMI model predicts."""

import shlex

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from mmseg.registry import MODELS
from pages import blocks_of, commands_of, run_block
from tiny import segmentor

from mmseg_ltmi.cli import main

META = dict(classes=list('abcd'), palette=[[i, i, i] for i in range(4)])
PREPROCESSOR = dict(
    type='SegDataPreProcessor', mean=[120, 110, 100], std=[60, 50, 40], bgr_to_rgb=True
)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='PackSegInputs'),
]


def write_config(name, **options):
    model = segmentor(data_preprocessor=PREPROCESSOR, **options)
    data = dict(dataset=dict(pipeline=PIPELINE))
    cfg = Config(dict(model=model, test_pipeline=PIPELINE, test_dataloader=data))
    cfg.dump(f'{name}.py')
    return cfg


def write_checkpoint(name, **options):
    torch.manual_seed(0)
    model = MODELS.build(write_config(name, **options).model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=5)  # so that classes differ
    content = dict(meta=dict(dataset_meta=META), state_dict=model.state_dict())
    torch.save(content, f'{name}.pth')


@pytest.mark.smoke
def test_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint('ltmi')
    write_checkpoint('cosine', head=dict(classifier=dict(type='cosine')))
    write_config('stock', ltmi=False, head=dict(loss_decode=dict(type='CrossEntropyLoss')))
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    cv2.imwrite('image.png', cv2.resize(noise, (90, 60), interpolation=cv2.INTER_CUBIC))

    names: dict = {}
    for block in blocks_of('export.md'):
        for command in commands_of(block):
            program, *arguments = shlex.split(command)
            assert program == 'mmseg-ltmi' and main(arguments) == 0
        run_block('export.md', block, names)

    ltmi = init_model('ltmi.py', 'ltmi.pth', device='cpu')
    stock = init_model('stock.py', 'stock.pth', device='cpu')
    assert stock.dataset_meta == ltmi.dataset_meta == META
    wanted = inference_model(ltmi, 'image.png').pred_sem_seg.data[0].numpy()
    assert names['classes'].shape == wanted.shape == (60, 90)
    assert len(np.unique(wanted)) > 1
    # The page goes to the size of the image in one step, predict() in two.
    assert (names['classes'] == wanted).mean() > 0.97

    images = torch.randn(1, 3, 64, 64)
    session = onnxruntime.InferenceSession('cosine.onnx')
    (found,) = session.run(None, {'images': images.numpy()})
    cosine = init_model('cosine.py', 'cosine.pth', device='cpu')
    expected = cosine.decode_head.score_reader(cosine(images))
    torch.testing.assert_close(torch.from_numpy(found), expected.detach(), atol=1e-4, rtol=1e-4)
