"""Embed words with the text tower of a collection: neither torch nor open_clip is needed.

The metadata of the ONNX file has an entry `METADATA`, which is JSON: the `version` of its form, the
`templates` of prompts that words are put into, and the `merges` of the tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from imgsearch.embedding.runtime import Embeddings, TextRuntime
from imgsearch.embedding.tokens import Tokenizer
from imgsearch.errors import REPAIR_IT, DamagedError, InputError

__all__ = ["METADATA", "VERSION", "WordEmbedder"]

METADATA, VERSION = "imgsearch.words", 1

_MERGES = 100_000  # Maximum merges; CLIP has 48,894.
_TEMPLATES = 100


class WordEmbedder:
    """A text tower with its tokenizer. Safe for concurrent use."""

    def __init__(self, path: Path, dim: int, *, threads: int = 0) -> None:
        """Open a text tower.

        Args:
            path: The ONNX file, made by `imgsearch.embedding.clip.export_words`.
            dim: Length of an embedding according to the catalog.
            threads: Number of threads for one text; 0 for one per core.

        Raises:
            DamagedError: If the file is missing, not an ONNX model, or not the model that the
                catalog describes.
            ModelError: If imgsearch did not export it.
            StorageError: If it cannot be read.
        """
        self._runtime = TextRuntime(path, dim, threads=threads)
        try:
            given = json.loads(self._runtime.metadata.get(METADATA, ""))
            version, templates, merges = (
                given[each] for each in ("version", "templates", "merges")
            )
            if version != VERSION or not (
                _are_text(templates, _TEMPLATES)
                and all(template.count("{}") == 1 for template in templates)
                and _are_text(merges, _MERGES)
                and all(merge.count(" ") == 1 for merge in merges)
            ):
                raise ValueError(version)
        except (KeyError, RecursionError, TypeError, ValueError):
            raise DamagedError(f"{path} has no tokenizer that can be read; {REPAIR_IT}") from None
        self._templates: list[str] = templates
        self._tokenizer = Tokenizer(merges)

    def embed(self, text: str) -> Embeddings:
        """Return the embedding of a text, float32 `[1, dim]`, L2-normalised.

        It is the mean over the templates, as the authors of CLIP combine prompts.

        Raises:
            InputError: If the text is empty.
            ModelError: If the tower fails.
        """
        if not text.strip():
            raise InputError("the text to search for is empty; give at least one word")
        rows = [self._row(template.replace("{}", text)) for template in self._templates]
        mean = np.mean(rows, axis=0, dtype=np.float32)
        result: Embeddings = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return result

    def _row(self, text: str) -> Embeddings:
        tokens, end = self._tokenizer.tokens(text, self._runtime.length)
        return self._runtime.embed(np.array([tokens], np.int64), np.array([end], np.int64))


def _are_text(values: Any, most: int) -> bool:
    return (
        isinstance(values, list)
        and 0 < len(values) <= most
        and all(isinstance(value, str) and len(value) <= 500 for value in values)
    )
