"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / 'examples'


def test_notebook_runs(tmp_path):
    notebook = nbformat.read(EXAMPLES / 'quickstart.ipynb', as_version=4)
    for name in ('any_torch_model.py', 'label_folder.py'):
        shutil.copy(EXAMPLES / name, tmp_path)
    for long, short in (('STEPS = 250', 'STEPS = 3'), ("'train', 400", "'train', 16")):
        assert long in notebook.cells[1].source
        notebook.cells[1].source = notebook.cells[1].source.replace(long, short)
    place = dict(metadata=dict(path=str(tmp_path)))
    NotebookClient(notebook, timeout=300, resources=place).execute()
    assert notebook.cells[-1].outputs[0].text == 'the same scores: True\n'


def test_stored_outputs_are_small_and_whole():
    file = EXAMPLES / 'quickstart.ipynb'
    assert file.stat().st_size < 200_000
    cells = [c for c in json.loads(file.read_text('utf-8'))['cells'] if c['cell_type'] == 'code']
    assert [c['execution_count'] for c in cells] == list(range(1, len(cells) + 1))
