"""What docs/plain_pytorch.md shows runs as it stands there."""

import os
import subprocess
import sys

import torch
from pages import blocks_of, run_python

from mmseg_ltmi import ClassPrior


def test_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = run_python('plain_pytorch.md')
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'class_prior.json', 'model.pth'}
    assert names['prior'] == names['ClassPrior'].load('class_prior.json')
    assert names['loss'].isfinite()
    assert names['classes'].shape == names['balanced'].shape == (8, 64, 64)
    assert torch.allclose(names['probabilities'].sum(1), torch.ones(8, 64, 64))


def test_the_program_of_several_processes_runs(tmp_path):
    (program,) = [block for block in blocks_of('plain_pytorch.md') if block.file]
    (tmp_path / program.file).write_text(program.text, 'utf-8')
    ClassPrior(range(1, 14)).save(tmp_path / 'class_prior.json')
    start = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *start, program.file],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_loop_has_ten_lines():
    texts = [block.text for block in blocks_of('plain_pytorch.md')]
    (loop,) = [text for text in texts if text.startswith('criterion = ')]
    assert loop.count('\n') == 10


def test_natural_shift_in_the_bias_is_the_natural_reading():
    from mmseg_ltmi.core import LTMILoss, ScoreReader

    criterion = LTMILoss([80, 15, 5])
    classifier = torch.nn.Conv2d(4, 3, 1)
    features = torch.randn(2, 4, 5, 5)
    reader = ScoreReader(3)
    reader.update(criterion.natural_shift(), criterion.log_prior)
    with torch.no_grad():
        natural = reader(classifier(features))
        classifier.bias += criterion.natural_shift()
        assert torch.allclose(classifier(features), natural, atol=1e-6)
