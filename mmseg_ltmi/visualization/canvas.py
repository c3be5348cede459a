"""Where pictures are drawn. matplotlib is imported by the first one, not before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mmseg_ltmi.core.class_names import one_line, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, and a marker each for print without colour.
STYLES = (
    ('#000000', 'o'), ('#0072B2', '^'), ('#D55E00', 'D'), ('#009E73', 'v'), ('#CC79A7', 'P'),
    ('#E69F00', 'X'), ('#56B4E9', '*'), ('#F0E442', 'p'), ('#999999', 's'),
)  # fmt: skip
FAINT = '#777777'
FORMATS = ('png', 'jpg', 'jpeg', 'webp', 'tif', 'tiff', 'pdf', 'svg', 'eps')
MAX_INCHES = 60.0
"""Of a side: a thousand classes would otherwise make a picture that nothing opens."""


def picture_format(path: str | Path) -> str:
    """The format that a file's name asks for; PNG where it has no suffix.

    Raises:
        ValueError: pictures are not drawn in that format.
    """
    suffix = Path(path).suffix.lower().removeprefix('.') or 'png'
    if suffix not in FORMATS:
        raise ValueError(
            f'{path}: a picture cannot be drawn as .{suffix}. Let the name end in one of '
            f'{", ".join(f".{known}" for known in FORMATS)}'
        )
    return suffix


@contextmanager
def canvas(
    path: str | Path | IO[bytes], width: float, height: float, dpi: int = 120
) -> Iterator[Figure]:
    """A figure of so many inches, which is saved at the end, with its folder.

    In the format of the file's suffix, and to a stream as PNG. Texts are drawn as they are: a class
    may be called ``$1`` or ``a_b``.
    """
    form = picture_format(path) if isinstance(path, (str, Path)) else 'png'
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({'text.parse_math': False, 'text.usetex': False}):
        figure = Figure(figsize=(width, min(height, MAX_INCHES)), layout='constrained')
        yield figure
        if isinstance(path, (str, Path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, format=form)


def label_of(name: str, width: int = 32) -> str:
    """A name as a picture shows it: one line that is not too long."""
    text = shortened(one_line(name), width)
    # Legends leave out what begins with an underscore.
    return f' {text}' if text.startswith('_') else text


def colours(number: int) -> list[str]:
    """So many colours as '#rrggbb', none of them grey."""
    if number <= len(STYLES) - 2:
        return [colour for colour, _ in STYLES[1 : number + 1]]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps['turbo'](i / (number - 1))) for i in range(number)]
