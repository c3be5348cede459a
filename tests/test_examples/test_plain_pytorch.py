"""What docs/plain_pytorch.md shows runs as it stands there."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / 'docs' / 'plain_pytorch.md'


def test_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    text = PAGE.read_text()
    names = {}
    for block in re.finditer(r'```python\n(.*?)```', text, re.DOTALL):
        # As many empty lines before it, so that an error names the line of the page.
        lines_before = text[: block.start(1)].count('\n')
        exec(compile('\n' * lines_before + block[1], str(PAGE), 'exec'), names)
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'class_prior.json', 'model.pth'}
    assert names['prior'] == names['ClassPrior'].load('class_prior.json')
    assert names['loss'].isfinite()
    assert names['classes'].shape == names['balanced'].shape == (8, 64, 64)
    assert torch.allclose(names['probabilities'].sum(1), torch.ones(8, 64, 64))


def test_the_loop_has_ten_lines():
    (loop,) = re.findall(r'```python\n(criterion = .*?)```', PAGE.read_text(), re.DOTALL)
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


def test_lines_are_wrapped():
    assert all(len(line) <= 100 for line in PAGE.read_text().splitlines())
