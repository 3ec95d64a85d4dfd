"""How the catalog keeps patterns: each list of them as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

__all__ = ["patterns_of", "text_of"]


def text_of(patterns: Sequence[str]) -> str:
    """Return a list of patterns as it is kept, in ASCII: a pattern may be no UTF-8."""
    return json.dumps(list(patterns))


def patterns_of(value: object) -> object:
    """Return the patterns that a value stands for, a tuple; the value itself if it is damaged."""
    try:
        texts = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    return tuple(texts)
