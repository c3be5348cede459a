"""Checks every Markdown page: lines of at most 100 columns, links that lead somewhere, no TODO.

Lines of code blocks and tables, and lines that are one link, may be longer.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

WIDTH = 100
SITE = Path('docs')
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)[^)]*\)')


def faults(page: Path) -> list[str]:
    """What is wrong with a page, as 'file:line: fault'."""
    found, in_code = [], False
    for number, line in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
        where = f'{page}:{number}: '
        if line.lstrip().startswith('```'):
            in_code = not in_code
        if 'TODO' in line:
            found.append(f'{where}TODO')
        if in_code or line.startswith('    '):
            continue
        is_table, is_link = line.startswith('|'), LINK.fullmatch(line.strip(' -*!.'))
        if len(line) > WIDTH and not is_table and not is_link:
            found.append(f'{where}{len(line)} columns, more than {WIDTH}')
        found += [f'{where}dead link: {target}' for target in dead_links(page, line)]
    return found


def dead_links(page: Path, line: str) -> list[str]:
    """Targets of a line's links that are not there, and anchors that no heading has.

    The site is made of docs/ alone, so a page of it links to no file outside.
    """
    dead = []
    for target in LINK.findall(line):
        if re.match(r'[a-z]+:', target):
            continue
        name, _, anchor = target.partition('#')
        file = page.parent / name if name else page
        is_outside = page.is_relative_to(SITE) and not file.resolve().is_relative_to(SITE.resolve())
        has_anchor = not anchor or file.suffix != '.md' or anchor in anchors(file)
        if is_outside or not file.exists() or not has_anchor:
            dead.append(target)
    return dead


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings that GitHub and MkDocs make alike, so of ASCII alone."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(encoding='utf-8'), re.MULTILINE)
    words = (re.sub(r'[^\w\- ]', '', heading.lower()) for heading in headings)
    return {text.strip().replace(' ', '-') for text in words if text.isascii()}


def main() -> None:
    listed = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '*.md']
    pages = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    found = [fault for page in map(Path, pages) if page.exists() for fault in faults(page)]
    print('\n'.join(found) or f'{len(pages)} pages are in order')
    sys.exit(bool(found))


if __name__ == '__main__':
    main()
