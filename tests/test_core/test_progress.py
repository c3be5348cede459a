"""The progress bar: on stderr, for people only, and with the time that is left."""

import io
import re
import sys

import pytest

from mmseg_ltmi.core.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """What a terminal is shown from now on."""
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '120')
    stream = Terminal()
    monkeypatch.setattr(sys, 'stderr', stream)
    return stream


def test_a_terminal_sees_a_bar_and_a_file_its_own_lines(monkeypatch):
    seen, out = terminal(monkeypatch), io.StringIO()
    monkeypatch.setattr(sys, 'stdout', out)
    with progress_bar(4, 'counting') as advance:
        for _ in range(4):
            advance()
        print('a line')
    assert re.search(r'counting .*100% 0:00:00', re.sub(r'\x1b\[[\d;?]*\w', '', seen.getvalue()))
    assert out.getvalue() == 'a line\n'


def test_the_first_step_tells_what_the_others_take(monkeypatch):
    seen, now = terminal(monkeypatch), [1000.0]
    monkeypatch.setattr('rich.console.monotonic', lambda: now[0])
    with progress_bar(3, 'runs') as advance:
        now[0] += 600
        advance()
    # Ten minutes each, and two are left.
    assert '0:20:00' in seen.getvalue()


@pytest.mark.parametrize('total, stream', [(None, Terminal), (4, io.StringIO)])
def test_nothing_is_shown_where_nobody_looks(total, stream, monkeypatch):
    seen = stream()
    monkeypatch.setattr(sys, 'stderr', seen)
    with progress_bar(total, 'counting') as advance:
        advance()
    assert seen.getvalue() == ''
