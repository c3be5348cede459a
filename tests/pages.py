"""Runs what a page of the guides shows.

A block of ``python`` runs. One with a title is a file that the reader writes. In a block of
``console`` the lines behind ``$`` run, as a reader types them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parents[1] / 'docs'
BLOCK = re.compile(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of a page: its kind, the name of the file that it is or '', its lines, its place."""

    kind: str
    file: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    """The blocks of ``docs/PAGE``, in order."""
    text = (DOCS / page).read_text(encoding='utf-8')
    return [
        Block(match[1], match[2] or '', match[3], text[: match.start(3)].count('\n'))
        for match in BLOCK.finditer(text)
    ]


def commands_of(block: Block) -> list[str]:
    """The commands of a block of ``console``; of another none."""
    if block.kind != 'console':
        return []
    lines = block.text.replace('\\\n', ' ').splitlines()
    return [line.removeprefix('$ ') for line in lines if line.startswith('$ ')]


def run_python(page: str) -> dict[str, Any]:
    """Run a page's Python blocks here, one after the other; the names that they leave."""
    names: dict[str, Any] = {}
    for block in blocks_of(page):
        run_block(page, block, names)
    return names


def run_block(page: str, block: Block, names: dict[str, Any]) -> None:
    """Run a block here, if it is Python that is no file; ``names`` are those that it sees."""
    if block.kind == 'python' and not block.file:
        # As many empty lines before it, so that an error names the line of the page.
        exec(compile('\n' * block.line + block.text, str(DOCS / page), 'exec'), names)


def run_as_reader(page: str, folder: Path, python: Path, env: Mapping[str, str]) -> str:
    """Do what a page says in a folder, with another Python; all output.

    Raises:
        AssertionError: something failed; it shows its output.
    """
    output = []
    for block in blocks_of(page):
        if block.file:
            (folder / block.file).write_text(block.text, 'utf-8')
        elif block.kind == 'python':
            output.append(_run([str(python), '-c', block.text], folder, env))
        elif block.kind == 'console':
            output += [_run(command, folder, env) for command in commands_of(block)]
    return ''.join(output)


def _run(command: str | list[str], folder: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        shell=isinstance(command, str),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-4000:]}'
    return done.stdout
