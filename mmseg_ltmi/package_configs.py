"""Finds ``PACKAGE::`` configs wherever Python finds the package; ``mmseg_ltmi::`` is one."""

from __future__ import annotations

import functools
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

SEARCHERS = (
    'mmengine.utils.package_utils',
    'mmengine.utils',
    'mmengine.config.config',
    'mmengine.hub.hub',
)


def find_configs() -> None:
    """Called as soon as mmengine.config is imported; calling it again changes nothing.

    mmengine knows a fixed list of packages, and looks for each beside its distribution's metadata.
    An editable install has it elsewhere. mmengine 0.10 asks pkg_resources for that, which is slow,
    warns of itself, and is gone since setuptools 82.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE[__package__] = __package__
    # What is looked up is a distribution, and the fork's has another name.
    if not _is_distribution('mmsegmentation') and _is_distribution('onedl-mmsegmentation'):
        MODULE2PACKAGE['mmseg'] = 'mmseg'
    for name in SEARCHERS:
        for search in (is_installed, get_installed_path):
            if hasattr(sys.modules.get(name), search.__name__):
                setattr(sys.modules[name], search.__name__, search)
    search_config = Config._get_cfg_path
    if hasattr(search_config, '__wrapped__'):
        return

    @functools.wraps(search_config)
    def with_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = search_config(cfg_path, filename)
        # What a base describes is built in its package's scope. Ours are in mmsegmentation's.
        return path, 'mmseg' if scope == __package__ else scope

    Config._get_cfg_path = staticmethod(with_scope)


def config_path(config: str | Path) -> Path:
    """The file of a config, which ``PACKAGE::FILE`` names in an installed package.

    Raises:
        FileNotFoundError: there is no such package.
    """
    package, _, file = str(config).partition('::')
    if not file:
        return Path(config)
    folder = _folder_of(package)
    if folder is None:
        raise FileNotFoundError(f'there is no package {package}, which {config} names')
    return Path(folder, '.mim', 'configs', file)


def is_installed(package: str) -> bool:
    """Whether there is a distribution or a module of this name."""
    return _is_distribution(package) or _folder_of(package) is not None


def get_installed_path(package: str) -> str:
    """The folder of a distribution's package.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    folder = _folder_of(package)
    if folder is None:
        raise PackageNotFoundError(package)
    return folder


def _folder_of(package: str) -> str | None:
    names = [package]
    if _is_distribution(package):
        names += (distribution(package).read_text('top_level.txt') or '').split()
    for name in names:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            return next(iter(spec.submodule_search_locations))
        if spec is not None and spec.origin is not None:
            return os.path.dirname(spec.origin)
    return None


def _is_distribution(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
