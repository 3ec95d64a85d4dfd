"""Compare networks on labelled images, before a collection is made with one, or switched to it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from imgsearch.embedding.models import check_name
from imgsearch.embedding.runtime import pick_device
from imgsearch.errors import InputError, SettingError
from imgsearch.evaluation.evaluate import Evaluation, evaluate
from imgsearch.evaluation.labels import read_labels
from imgsearch.files.paths import is_url
from imgsearch.indexing.create import create
from imgsearch.indexing.options import IndexOptions
from imgsearch.indexing.update import update
from imgsearch.storage.layout import Layout
from imgsearch.storage.writer import CatalogWriter

__all__ = ["compare_models"]


def compare_models(
    models: Sequence[str],
    labels: str | os.PathLike[str],
    *,
    k: int = 10,
    options: IndexOptions | None = None,
    device: str = "auto",
) -> Iterator[tuple[str, Evaluation]]:
    """Yield each network by its full name, and how well the labelled images find their classes.

    The labelled images are embedded with each network, in a temporary collection.

    Args:
        models: The names of the networks: see `imgsearch.embedding.models`.
        labels: The labels: see `imgsearch.evaluation.labels.read_labels`.
        k: The number of ranks that P@k and recall@k consider.
        options: How to embed the images.
        device: The device to embed them on; "auto" for the best one available.

    Raises:
        SettingError: If no network is given.
        ModelError: If there is no such network, or its weights are unavailable.
        InputError: If no labelled image is there; or as `imgsearch.evaluation.evaluate.evaluate`.
    """
    if not models:
        raise SettingError("name at least one network to evaluate")
    for model in models:
        check_name(model)
    paths = [each.path for each in read_labels(labels)]
    there = [path for path in paths if is_url(path) or os.path.exists(path)]
    if not there:
        raise InputError(f"{os.fsdecode(labels)}: none of the labelled images is there")
    for model in models:
        with tempfile.TemporaryDirectory(prefix="imgsearch-") as folder:
            layout = Layout.at(Path(folder, "collection"))
            create(layout, model=model, weights=None, progress=True)
            with closing(CatalogWriter(layout.catalog)) as catalog:
                given = layout, catalog, there, options or IndexOptions()
                update(*given, device=pick_device(device), trust_model=False)
                name = catalog.snapshot().model.name
            yield name, evaluate(layout.directory, labels, k=k)
