"""What the guides show runs as it stands there, and what they point at is there."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from pages import DOCS, blocks_of, run_python

# These have tests of their own: they need files, or another environment.
ELSEWHERE = {'quickstart.md', 'export.md', 'plain_pytorch.md'}
PAGES = sorted(page.name for page in DOCS.glob('*.md'))
WITH_PYTHON = [
    page
    for page in PAGES
    if page not in ELSEWHERE and any(block.kind == 'python' for block in blocks_of(page))
]


@pytest.mark.parametrize('page', WITH_PYTHON)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python(page)


def test_every_command_is_known():
    from mmseg_ltmi.parsers import make_parser

    (action,) = [a for a in make_parser()._actions if a.dest == 'command']
    named = {
        name
        for page in [*DOCS.rglob('*.md'), DOCS.parent / 'README.md']
        for name in re.findall(r'mmseg-ltmi ([a-z]+(?:-[a-z]+)*)', page.read_text(encoding='utf-8'))
    }
    assert named - {'is'} <= set(action.choices)
    assert set(action.choices) <= named


def test_every_public_name_is_in_the_reference():
    page = (DOCS / 'api.md').read_text(encoding='utf-8')
    listed = re.findall(r'^::: (\S+)$', page, re.MULTILINE)
    for path in listed:
        module, _, name = path.rpartition('.')
        assert hasattr(import_module(module), name), path
    names = {path.rpartition('.')[2] for path in listed}
    for package in re.findall(r'^`(mmseg_ltmi\.\S+)`$', page, re.MULTILINE):
        public = import_module(package).__all__
        assert {name for name in public if not name.isupper()} - names <= _heads(package), package


def _heads(package: str) -> set[str]:
    # They are made from mmsegmentation's when this is imported; heads.md lists them.
    if package != 'mmseg_ltmi.models.decode_heads':
        return set()
    return {name for name in import_module(package).__all__ if name.startswith('LTMI')}


def test_every_page_is_in_the_navigation():
    listed = re.findall(r'(\S+\.md)$', (DOCS.parent / 'mkdocs.yml').read_text(), re.MULTILINE)
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob('*.md')}
    assert sorted(listed) == sorted(pages)


def test_every_config_is_in_the_table_of_its_folder():
    configs = Path(DOCS.parent, 'configs')
    for config in configs.glob('[!_]*/*.py'):
        assert f']({config.name})' in config.with_name('README.md').read_text(), config


def test_the_switch_of_the_readme_is_short():
    (switch,) = re.findall(
        r'```python\n(_base_ = .*?)```', (DOCS.parent / 'README.md').read_text(), re.DOTALL
    )
    assert len(ast.parse(switch).body) == 4
