"""Class names as texts that can be shown and told apart, whatever a data set calls its classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def distinct_names(names: Iterable[Any]) -> list[str]:
    """One line of text a name, no two alike.

    What is no text becomes one, white space and control characters become single spaces, an empty
    name becomes its index, and a name that occurs again gets a number: ``car``, ``car-2``. Other
    names stay as they are.
    """
    texts = [one_line(name) or str(c) for c, name in enumerate(names)]
    taken = set(texts)
    found: list[str] = []
    for text in texts:
        if text in found:
            number = 2
            while f'{text}-{number}' in taken:
                number += 1
            text = f'{text}-{number}'
            taken.add(text)
        found.append(text)
    return found


def one_line(name: Any) -> str:
    """A name as a text without line breaks and other characters that cannot be seen."""
    return ' '.join(''.join(c if c.isprintable() else ' ' for c in str(name)).split())


def shortened(text: str, width: int = 32) -> str:
    """At most ``width`` characters; of a longer text the beginning and the end."""
    if len(text) <= width:
        return text
    end = (width - 1) // 3
    return f'{text[: width - 1 - end]}…{text[len(text) - end :]}'
