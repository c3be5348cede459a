"""One way for a module to adapt a state dict before, and itself after, it is loaded.

Both hooks run under ``load_state_dict`` and under mmengine's own loader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

BeforeLoad = Callable[[Any, dict[str, Tensor], str], None]


def before_load(module: nn.Module, adapt: BeforeLoad) -> None:
    """Call ``adapt(module, state_dict, prefix)`` before the module reads its part of a state dict.

    It may change the dict in place. Give a function that pickles: a module level one.
    """
    module._register_load_state_dict_pre_hook(_Adapter(adapt), with_module=True)


def after_load(module: nn.Module, refresh: Callable[[Any], None]) -> None:
    """Call ``refresh(module)`` after the module and its children have read a state dict."""
    module.register_load_state_dict_post_hook(_Refresher(refresh))


def keep_own_where_absent(module: nn.Module, state_dict: dict[str, Tensor], prefix: str) -> None:
    """For :func:`before_load`: what the state dict lacks below the prefix stays as it is."""
    for name, value in module.state_dict().items():
        state_dict.setdefault(prefix + name, value)


def rename_keys(state_dict: dict[str, Tensor], prefix: str, renamed: dict[str, str]) -> None:
    """Move entries below a prefix from the name of an earlier version to the present one."""
    for old, new in renamed.items():
        if prefix + old in state_dict:
            state_dict[prefix + new] = state_dict.pop(prefix + old)


class _Adapter:
    def __init__(self, adapt: BeforeLoad) -> None:
        self.adapt = adapt

    def __call__(self, module: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
        self.adapt(module, state_dict, prefix)


class _Refresher:
    def __init__(self, refresh: Callable[[Any], None]) -> None:
        self.refresh = refresh

    def __call__(self, module: nn.Module, _: Any) -> None:
        self.refresh(module)
