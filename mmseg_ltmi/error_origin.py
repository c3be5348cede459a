"""Whether an error says what a user can mend, or is a fault that its traceback explains."""

from __future__ import annotations

from dis import opmap
from pathlib import Path
from types import TracebackType

PACKAGE = Path(__file__).parent


def is_ours(error: BaseException) -> bool:
    """Whether this package has raised an error to say what a user can mend.

    From elsewhere the error may be anyone's mistake, and its traceback says whose. What C code
    raises, as an operator of torch does, has the line of ours that called it as its innermost one,
    but no ``raise`` stands there.
    """
    end = _innermost(error)
    code = end.tb_frame.f_code.co_code
    return is_from_here(error) and code[end.tb_lasti] == opmap['RAISE_VARARGS']


def is_from_here(error: BaseException) -> bool:
    """Whether the innermost line of Python is this package's, which may have called C code."""
    file = _innermost(error).tb_frame.f_code.co_filename
    return PACKAGE in Path(file).resolve().parents


def _innermost(error: BaseException) -> TracebackType:
    end = error.__traceback__
    assert end is not None  # of an error that was raised
    while end.tb_next is not None:
        end = end.tb_next
    return end
