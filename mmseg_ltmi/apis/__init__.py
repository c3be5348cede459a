"""What the command line and notebooks call.

:func:`switch_on`, :func:`count`, :func:`choose` and :func:`compare` are here; the others are in
their modules.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmseg_ltmi.compat import require_openmmlab
from mmseg_ltmi.core.on_demand import import_on_demand

require_openmmlab()

if TYPE_CHECKING:
    from .choose import choose as choose
    from .compare import compare as compare
    from .count import count as count
    from .switch_on import switch_on as switch_on

__all__ = ['choose', 'compare', 'count', 'switch_on']

if not TYPE_CHECKING:
    # Comparing tables does not wait for the networks.
    __getattr__, __dir__ = import_on_demand(__name__, {name: [name] for name in __all__})


class _Apis(ModuleType):
    """The package, in which a function stands before the module of its name.

    Python sets a module that is imported as an attribute of its package. Without this,
    ``apis.compare`` would be one thing or the other, by who was there first.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Apis
