"""Collections in Milvus, as `imgsearch.places` has them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from imgsearch.backends.milvus import evaluate as evaluating
from imgsearch.backends.milvus import export
from imgsearch.backends.milvus.collection import MilvusCollection
from imgsearch.backends.milvus.export import Transfer
from imgsearch.backends.milvus.model import write_model
from imgsearch.backends.milvus.rows import Address
from imgsearch.backends.milvus.state import State, write_state
from imgsearch.backends.milvus.store import Store
from imgsearch.evaluation.evaluate import Evaluation
from imgsearch.indexing.create import make_model
from imgsearch.querying.options import PathLike, SearchOptions
from imgsearch.storage.layout import Layout

__all__ = ["create", "discard", "evaluate", "exists", "open_at", "receive"]


def exists(location: PathLike) -> bool:
    """Tell whether there is a collection."""
    with closing(Store(Address.of(location))) as store:
        return store.exists() and store.get("collection") is not None


def create(
    location: PathLike, *, model: str, weights: str | None, device: str, progress: bool
) -> MilvusCollection:
    """Make an empty collection and open it; what an interrupted attempt left is used."""
    store = Store(Address.of(location))
    record, onnx = make_model(model, weights, progress=progress)
    store.create(record.dim)
    write_model(store, onnx)
    write_state(store, State(record))
    store.flush()
    return MilvusCollection(store, device)


def discard(location: PathLike) -> bool:
    """Remove a collection that was just made and holds nothing; tell whether it is gone."""
    with closing(Store(Address.of(location))) as store:
        if store.count():
            return False
        store.drop()
    return True


def open_at(
    location: PathLike, *, device: str, threads: int = 0, trust_model: bool = False
) -> MilvusCollection:
    """Open a collection."""
    store = Store(Address.of(location))
    return MilvusCollection(store, device, threads, trust_model=trust_model)


def evaluate(
    location: PathLike,
    labels: PathLike,
    *,
    k: int,
    recall: float | None,
    nprobe: int | None,
    progress: Callable[[int, int], None] | None,
) -> Evaluation:
    """See `imgsearch.evaluation.evaluate`."""
    options = SearchOptions(k=k, recall=recall, nprobe=nprobe)
    with open_at(location, device="cpu") as collection:
        return evaluating.evaluate(collection.view(), labels, options, progress)


def receive(
    location: PathLike,
    directory: PathLike,
    *,
    verify: bool,
    progress: Callable[[int, int], None] | None,
) -> Transfer:
    """Take in a copy of the collection in a directory, or compare the two."""
    with closing(Store(Address.of(location))) as store:
        return export.receive(store, Layout.at(directory), verify=verify, progress=progress)
