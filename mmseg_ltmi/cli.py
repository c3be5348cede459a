"""The command ``mmseg-ltmi``, also ``python -m mmseg_ltmi``.

What the commands do is imported when one runs, so that --help needs the standard library only.
"""

from __future__ import annotations

import io
import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .error_origin import is_from_here, is_ours
from .parsers import make_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status.

    Args:
        arguments: those behind ``mmseg-ltmi``; None takes the process's.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # names that a terminal cannot show
    args = make_parser().parse_args(arguments)
    if args.command == 'run':
        return _run_script(args.script, args.arguments)  # whose errors keep their tracebacks
    try:
        from .compat import require_openmmlab

        require_openmmlab()
        commands = import_module('.apis.commands', __package__)
        status = getattr(commands, args.command.replace('-', '_'))(args)
        print(end='', flush=True)  # here, where a reader that is gone is no traceback
        return status
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, (RuntimeError, ValueError)) and not is_ours(error):
            raise
        if isinstance(error, BrokenPipeError) and is_from_here(error):
            # Whoever read what we print has ended, as head does. Python flushes once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        text = str(error).strip() or type(error).__name__
        if isinstance(error, FileNotFoundError) and 'config' in args:
            text += _where_data_lies(error)
        print(f'mmseg-ltmi {args.command}: {text}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'mmseg-ltmi {args.command}: stopped', file=sys.stderr)
        return 130


def _run_script(script: str, arguments: list[str]) -> int:
    # As Python does, in whose place we are.
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name='__main__')
    return 0


def _where_data_lies(error: OSError) -> str:
    # A folder that a data set has not found, not one to write to; ours have no such name.
    names = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    if error.filename is None or Path(error.filename).suffix or 'full_init' not in names:
        return ''
    return (
        '. If the data is elsewhere, say so with data_root in the config, or with --cfg-options '
        'train_dataloader.dataset.data_root=FOLDER (val_, test_dataloader)'
    )


if __name__ == '__main__':
    sys.exit(main())
