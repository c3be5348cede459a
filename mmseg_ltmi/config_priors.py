"""Finds the class priors that a config file names beside it, as ``{{ fileDirname }}`` would."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def look_beside_configs() -> None:
    """Called as soon as mmengine.config is imported; calling it again changes nothing.

    A model, a metric and a hook get their part of a config, which does not say where its file lies.
    Reading the file is where all of them begin: a Runner, ``init_model`` and an inferencer.
    """
    from mmengine.config import Config

    initialize = Config.__init__
    if hasattr(initialize, '__wrapped__'):
        return

    @functools.wraps(initialize)
    def with_priors(self: Config, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        if self.filename:
            _name_beside(self._cfg_dict, Path(os.path.abspath(self.filename)).parent)

    Config.__init__ = with_priors
    for name in ('_file2dict', '_parse_lazy_import'):
        setattr(Config, name, staticmethod(_naming_beside(getattr(Config, name))))


def _naming_beside(read: Callable[..., Any]) -> Callable[..., Any]:
    """What reads a file, and each of its bases, whose prior may lie beside it."""

    @functools.wraps(read)
    def with_priors(filename: str, *args: Any, **kwargs: Any) -> Any:
        found = read(filename, *args, **kwargs)
        folder = Path(os.path.abspath(os.path.expanduser(filename))).parent
        _name_beside(found[0], folder, if_found=True)
        return found

    return with_priors


def _name_beside(node: Any, folder: Path, if_found: bool = False) -> None:
    """Give each prior that is no file in the working directory the path beside the config.

    With ``if_found`` only where there is such a file.
    """
    # Past ConfigDict's own items(), which would import what a config in pure Python names.
    is_dict = isinstance(node, dict)
    for key, value in list(dict.items(node) if is_dict else enumerate(node)):
        if isinstance(value, (dict, list, tuple)):
            _name_beside(value, folder, if_found)
        elif (
            is_dict
            and key in ('class_prior', 'test_prior')
            and isinstance(value, str)
            and Path(value).suffix  # a published prior has none, nor has 'online'
            and not os.path.isfile(value)
            and (not if_found or os.path.isfile(folder / value))
        ):
            node[key] = str(folder / value)
