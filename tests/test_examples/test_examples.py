"""Both examples train, score and reload, where OpenMMLab is not installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / 'examples'

# Beside the example's own main, it keeps the trained model, to compare the saved one with it.
DRIVER = """
import sys
from importlib import import_module
from pathlib import Path

for name in ('mmengine', 'mmcv', 'mmseg', 'torchvision'):
    sys.modules[name] = None  # as if it were not installed
sys.path.insert(0, sys.argv.pop(1))
import torch
import label_folder

example, out = import_module(sys.argv.pop(1)), sys.argv.pop(1)
trained = []

def score_and_keep(model, *args):
    trained.append(model)
    label_folder.print_scores(model, *args)

example.print_scores = score_and_keep
sys.argv += ['--out', out]
example.main()

model, loaded = trained[0].eval(), example.load(Path(out))
images = torch.randn(2, 3, 40, 56)
with torch.no_grad():
    assert torch.equal(loaded(images), model(images))
assert torch.equal(label_folder.decide(loaded, images), label_folder.decide(model, images))
assert not loaded[1].natural_shift.isnan().any()
print('the saved model predicts the same')
"""


def run(folder, example, *options):
    """What the example prints."""
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, EXAMPLES, example, 'model', '--device', 'cpu', *options],
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'the saved model predicts the same' in done.stdout
    return done.stdout


def losses(text):
    """Both terms of each step that is printed."""
    return [(float(a), float(b)) for a, b in re.findall(r'step \d+: loss (\S+) \+ (\S+)', text)]


def scores(text):
    """mIoU and IoU of head, medium and tail of both readings."""
    pattern = r'(natural|balanced) +mIoU +(\S+)  head +(\S+)  medium +(\S+)  tail +(\S+)'
    return {name: [float(v) for v in values] for name, *values in re.findall(pattern, text)}


def test_any_torch_model(tmp_path):
    text = run(tmp_path, 'any_torch_model', '--steps', '20', '--size', '32', '32')
    first, *_, last = losses(text)
    assert last[0] < 0.8 * first[0] and last[1] < first[1]
    natural, balanced = scores(text)['natural'], scores(text)['balanced']
    assert all(0 <= iou <= 100 for iou in natural + balanced)
    assert natural[0] > 100 / 13 / 2 and natural != balanced


def test_huggingface_segformer(tmp_path):
    pytest.importorskip('transformers')
    options = ('--steps', '3', '--size', '32', '32')
    text = run(tmp_path, 'huggingface_segformer', *options)
    assert len(losses(text)) == 2 and set(scores(text)) == {'natural', 'balanced'}
    assert all(0 < value < 10 for step in losses(text) for value in step)


def test_huggingface_segformer_with_local_weights(tmp_path, monkeypatch):
    transformers = pytest.importorskip('transformers')
    config = transformers.SegformerConfig(
        num_labels=5, depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1] * 4,
        decoder_hidden_size=16,
    )  # fmt: skip
    # An encoder's weights, and a whole model's with another number of classes.
    transformers.SegformerModel(config).save_pretrained(tmp_path / 'encoder')
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / 'whole')
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from huggingface_segformer import build

    for name in ('encoder', 'whole'):
        segformer = build(13, tmp_path / name).segformer
        assert segformer.decode_head.classifier.out_channels == 13
        saved = transformers.SegformerModel.from_pretrained(tmp_path / name).state_dict()
        own = segformer.segformer.state_dict()
        assert own.keys() == saved.keys()
        assert all((own[key] == value).all() for key, value in saved.items())


@pytest.mark.skipif('LTMI_CAMVID_ROOT' not in os.environ, reason='needs CamVid')
@pytest.mark.parametrize('example', ['any_torch_model', 'huggingface_segformer'])
def test_camvid(tmp_path, example):
    if example.startswith('huggingface'):
        pytest.importorskip('transformers')
    root = Path(os.environ['LTMI_CAMVID_ROOT']).resolve()
    text = run(tmp_path, example, '--data', root, '--steps', '3', '--size', '48', '64')
    assert len(losses(text)) == 2 and set(scores(text)) == {'natural', 'balanced'}
    assert not (tmp_path / 'data').exists()


def test_an_image_without_label_map(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from label_folder import LabelFolder

    for name in ('img', 'ann'):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r'no image in .*img'):
        LabelFolder(tmp_path / 'img', tmp_path / 'ann')
    (tmp_path / 'img' / 'a.jpg').touch()
    with pytest.raises(FileNotFoundError, match=r'no label map .*a\.png'):
        LabelFolder(tmp_path / 'img', tmp_path / 'ann')
