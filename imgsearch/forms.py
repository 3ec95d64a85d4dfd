"""The JSON of paths, hits, answers and facts, on the command line and by the server."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgsearch.hits import Answer, Hit
    from imgsearch.reports import Info

__all__ = ["answer_fields", "dump", "hit_fields", "info_fields", "path_fields"]


def dump(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(value)


def path_fields(path: str, name: str = "path") -> dict[str, str]:
    """Return a path as a JSON field; its bytes, base64, beside it where it is not UTF-8."""
    raw = os.fsencode(path)
    text = raw.decode("utf-8", "replace")
    if text.encode() == raw:
        return {name: text}
    return {name: text, f"{name}_bytes": base64.b64encode(raw).decode("ascii")}


def hit_fields(hit: Hit) -> dict[str, Any]:
    """Return a hit; distance and similarity have six digits."""
    return {
        "rank": hit.rank,
        "id": hit.id,
        **path_fields(hit.path),
        "distance": round(hit.distance, 6),
        "similarity": round(hit.similarity, 6),
    }


def answer_fields(answer: Answer) -> dict[str, Any]:
    """Return an answer: how it was searched, and its hits."""
    search = answer.search
    return {
        "search": search.kind,
        "nprobe": search.nprobe,
        "recall": None if search.recall is None else round(search.recall, 6),
        "hits": [hit_fields(hit) for hit in answer.hits],
    }


def info_fields(info: Info) -> dict[str, Any]:
    """Return what a collection holds."""
    return asdict(info) | {"roots": [path_fields(root) for root in info.roots]}
