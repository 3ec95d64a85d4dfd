"""The state kept beside the rows: the model, the settings, the scope, and the promise."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from urllib.parse import unquote_to_bytes

from imgsearch.backends.milvus.rows import quoted
from imgsearch.backends.milvus.store import Store
from imgsearch.errors import DamagedError, NoCollectionError
from imgsearch.indexing.create import RECALL
from imgsearch.storage.records import CurveStep, IvfRecord, ModelRecord, Settings

__all__ = ["State", "read_state", "write_state"]

VERSION = 1
_NAME = "collection"


@dataclass(frozen=True, slots=True)
class State:
    """The state of a collection in Milvus.

    Attributes:
        model: The model that makes its embeddings.
        settings: The values of `nlist` and of the promised recall.
        folders: The absolute paths of the folders to scan.
        files: The files that were given individually.
        excluded: The files and folders that were removed.
        ivf: The index and its promise; one band, whose `up_to` is the squared distance of the
            nearest hit beyond which a query is answered exactly. None if search is exact.
    """

    model: ModelRecord
    settings: Settings = field(default_factory=lambda: Settings(None, RECALL))
    folders: tuple[bytes, ...] = ()
    files: tuple[bytes, ...] = ()
    excluded: tuple[bytes, ...] = ()
    ivf: IvfRecord | None = None


def write_state(store: Store, state: State) -> None:
    """Store the state, whose existence declares a collection."""
    fields = {
        "version": VERSION,
        "model": asdict(state.model),
        "settings": asdict(state.settings),
        "folders": [quoted(path) for path in state.folders],
        "files": [quoted(path) for path in state.files],
        "excluded": [quoted(path) for path in state.excluded],
        "ivf": None if state.ivf is None else asdict(state.ivf),
    }
    store.put(_NAME, json.dumps(fields).encode())


def read_state(store: Store) -> State:
    """Return the state.

    Raises:
        NoCollectionError: If there is no collection.
        DamagedError: If it has another version, or makes no sense.
    """
    where = store.address.location
    written = store.get(_NAME) if store.exists() else None
    if written is None:
        raise NoCollectionError(
            f"there is no collection at {where}; create it with `imgsearch index FOLDER`, or copy "
            "one there with `imgsearch export`"
        )
    try:
        fields = json.loads(written)
        version, ivf = fields["version"], fields["ivf"]
        if version != VERSION:
            raise DamagedError(
                f"{where} has format version {version}, but this imgsearch reads {VERSION}; "
                f"update it"
            )
        if ivf is not None:
            ivf = IvfRecord(**{**ivf, "curve": tuple(CurveStep(**step) for step in ivf["curve"])})
        folders, files, excluded = (
            tuple(map(unquote_to_bytes, fields[name])) for name in ("folders", "files", "excluded")
        )
        model, settings = ModelRecord(**fields["model"]), Settings(**fields["settings"])
        settings = replace(
            settings, exclude=tuple(settings.exclude), include=tuple(settings.include)
        )
        return State(model, settings, folders, files, excluded, ivf)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{where}: the state of the collection is not valid") from error
