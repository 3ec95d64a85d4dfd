"""Talk to Milvus; no other module does. `D` are squared L2 distances, -1 stands for no id."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from imgsearch.ann.vectors import Ids, Neighbours, Vectors
from imgsearch.backends.milvus.rows import Address, Row, quoted
from imgsearch.errors import DamagedError, InputError, PackageError, StorageError, reason_of

__all__ = ["MAX_LISTS", "MAX_ROWS", "Store"]

MAX_ROWS = 16_384  # maximum rows that Milvus returns at a time
MAX_LISTS = 65_536
_IDS = 2**63  # number of possible ids
_RANGE = 4_096  # approximate rows to read at a time
_ROWS = 500  # rows to send at a time: 2.5 MB of 1280 values; Milvus accepts 64 MB
_QUERIES = 500
_TEXT = 48_000  # bytes to store in one field, which holds 65,535 characters
_SECONDS = 120.0  # timeout of a request
_FIELDS = ["id", "path", "digest", "size", "mtime_ns"]


class Store:
    """The rows of a collection, and named values beside them, in `NAME` and `NAME_meta`."""

    def __init__(self, address: Address) -> None:
        """Connect.

        Raises:
            PackageError: If pymilvus is not installed.
            StorageError: If there is no server.
        """
        try:
            from pymilvus import MilvusClient, MilvusException
        except ImportError as error:
            what = f"{address.location} needs pymilvus, which is not installed"
            raise PackageError(what, "milvus") from error
        # pymilvus logs each error, with its traceback, before raising it.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.address = address
        self._error: type[Exception] = MilvusException
        self._kind: Any = MilvusClient
        try:
            self._client: Any = MilvusClient(address.uri, timeout=_SECONDS)
        except (MilvusException, OSError) as error:
            raise self._failure(error) from error
        self._name, self._meta = address.name, f"{address.name}_meta"
        self._loaded = False
        self._closed = False

    def close(self) -> None:
        """Disconnect; other methods raise `InputError` afterwards."""
        if not self._closed:
            self._closed = True
            self._client.close()

    def version(self) -> str:
        """Return the version of the server."""
        return str(self._ask("get_server_version"))

    # The collection

    def exists(self) -> bool:
        """Tell whether there is a collection, complete or not."""
        return bool(self._ask("has_collection", self._meta))

    def create(self, dim: int) -> None:
        """Create the missing parts of an empty collection."""
        from pymilvus import DataType

        if not self._ask("has_collection", self._name):
            schema = self._kind.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("path", DataType.VARCHAR, max_length=65_535)
            schema.add_field("digest", DataType.VARCHAR, max_length=64)
            schema.add_field("size", DataType.INT64)
            schema.add_field("mtime_ns", DataType.INT64)
            schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
            self._make(self._name, schema)
        if not self._ask("has_collection", self._meta):
            schema = self._kind.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=512)
            schema.add_field("value", DataType.VARCHAR, max_length=65_535)
            schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)  # a vector field is mandatory
            self._make(self._meta, schema)

    def drop(self) -> None:
        """Remove the collection, its state first: without that, there is no collection."""
        for name in (self._meta, self._name):
            self._ask("drop_collection", name)

    def load(self) -> None:
        """Load the collection into memory, after rebuilding an index that a crash has removed."""
        for name, field in ((self._name, "embedding"), (self._meta, "nothing")):
            if self._ask("list_indexes", name):
                self._ask("load_collection", name)
            else:
                self._index(name, field, "FLAT", {})
        self._loaded = True

    def make_index(self, nlist: int | None) -> None:
        """Rebuild the index: `IVF_FLAT`, or `FLAT` if `nlist` is None. No queries meanwhile."""
        if self._ask("list_indexes", self._name):
            self._ask("release_collection", self._name)
            self._ask("drop_index", self._name, "embedding")
        if nlist is None:
            self._index(self._name, "embedding", "FLAT", {})
        else:
            self._index(self._name, "embedding", "IVF_FLAT", {"nlist": nlist})

    def flush(self) -> None:
        """Seal the rows written so far."""
        for name in (self._name, self._meta):
            self._ask("flush", name)

    # Rows

    def count(self) -> int:
        """Return the number of images."""
        found = self._query(filter="", output_fields=["count(*)"], consistency_level="Session")
        return int(found[0]["count(*)"])

    def upsert(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Add rows, or write them again; `vectors` is float32 `[n, dim]`."""
        for part in _parts(zip(rows, vectors, strict=True), _ROWS):
            data = [{**row.written(), "embedding": vector} for row, vector in part]
            self._ask("upsert", self._name, data)

    def delete(self, ids: Iterable[int]) -> None:
        """Delete the rows with these ids."""
        for part in _parts(ids, MAX_ROWS):
            self._ask("delete", self._name, ids=list(part))

    def rows(self) -> Iterator[Row]:
        """Yield all rows, each block in the state at the time of reading it.

        Ids are effectively random, so that equal ranges hold about equally many.
        """
        ranges = 1 + self.count() // _RANGE
        edges = [number * _IDS // ranges for number in range(ranges + 1)]
        for first, last in pairwise(edges):
            found = self._query(
                filter=f"id >= {first} and id <= {last - 1}", output_fields=_FIELDS, limit=MAX_ROWS
            )
            if len(found) == MAX_ROWS:
                raise StorageError(
                    f"{self.address.location}: more rows than expected have ids "
                    f"close to one another"
                )
            yield from map(Row.read, found)

    def rows_of(self, ids: Iterable[int]) -> list[Row]:
        """Return the rows with these ids, as far as they exist."""
        found = (self._get(part, _FIELDS) for part in _parts(ids, MAX_ROWS))
        return [Row.read(row) for part in found for row in part]

    def rows_after(self, id_: int, limit: int) -> list[Row]:
        """Return up to `limit` rows with higher ids than `id_`, ascending."""
        width = max(1, _IDS * limit // max(self.count(), 1))  # holds about `limit` ids
        found: list[Row] = []
        first = id_ + 1
        while first < _IDS and len(found) < limit:
            last = min(first + width, _IDS) - 1
            part = self._query(
                filter=f"id >= {first} and id <= {last}", output_fields=_FIELDS, limit=MAX_ROWS
            )
            found += sorted(map(Row.read, part), key=lambda row: row.id)
            first = last + 1
        return found[:limit]

    def there(self, ids: Iterable[int]) -> set[int]:
        """Return the ids that have a row."""
        found = (self._get(part, ["id"]) for part in _parts(ids, MAX_ROWS))
        return {int(row["id"]) for part in found for row in part}

    def ids_at(self, path: bytes) -> list[int]:
        """Return the ids of the rows at an absolute path."""
        found = self._query(filter=f'path == "{quoted(path)}"', output_fields=["id"])
        return [int(row["id"]) for row in found]

    def paths(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the absolute paths of those ids that still exist."""
        found = (self._get(part, ["id", "path"]) for part in _parts(ids, MAX_ROWS))
        return {int(row["id"]): unquote_to_bytes(row["path"]) for part in found for row in part}

    def vectors(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """Return the embeddings of those ids that still exist, float32 `[dim]` each."""
        found = (self._get(part, ["id", "embedding"]) for part in _parts(ids, _ROWS))
        return {
            int(row["id"]): np.array(row["embedding"], np.float32) for part in found for row in part
        }

    def sample(self, count: int) -> tuple[Ids, Vectors]:
        """Return ids and embeddings of about `count` images, as ids are effectively random."""
        last = min(_IDS, _IDS * count // max(self.count(), 1)) - 1
        found = self._query(
            filter=f"id <= {last}",
            output_fields=["id", "embedding"],
            limit=min(2 * count, MAX_ROWS),
        )
        ids = np.array([row["id"] for row in found], np.int64)
        return ids, np.array([row["embedding"] for row in found], np.float32)

    def search(self, queries: Vectors, k: int, nprobe: int = MAX_LISTS) -> Neighbours:
        """Return the `k` images nearest to each query.

        Args:
            queries: The vectors of the queries, float32 `[n, dim]`.
            k: The number of hits per query.
            nprobe: The number of lists to scan in each of Milvus's segments; by default, all.

        Raises:
            InputError: If Milvus does not return that many hits.
        """
        if k > MAX_ROWS:
            raise InputError(f"Milvus returns at most {MAX_ROWS:,} hits, not {k:,}; ask for fewer")
        distances, ids = Neighbours.none(len(queries), k)
        for start in range(0, len(queries), _QUERIES):
            found = self._ask(
                "search",
                self._name,
                data=list(queries[start : start + _QUERIES]),
                anns_field="embedding",
                limit=k,
                output_fields=["id"],
                search_params={"metric_type": "L2", "params": {"nprobe": nprobe}},
                consistency_level="Session",
            )
            for row, hits in enumerate(found, start):
                near = sorted((max(hit["distance"], 0.0), int(hit["id"])) for hit in hits)
                distances[row, : len(near)] = [distance for distance, _ in near]
                ids[row, : len(near)] = [id_ for _, id_ in near]
        return Neighbours(distances, ids)

    # Named values

    def put(self, name: str, value: bytes) -> None:
        """Store a value under a name. The row that names its parts is written last."""
        sha256 = hashlib.sha256(value).hexdigest()
        parts = [value[start : start + _TEXT] for start in range(0, len(value), _TEXT)]
        before = self._value(name)
        texts = [
            (f"{sha256}:{number}", base64.b64encode(part).decode())
            for number, part in enumerate(parts)
        ]
        for few in _parts([*texts, (name, f"{sha256} {len(parts)}")], 100):
            self._ask(
                "upsert",
                self._meta,
                [{"name": key, "value": text, "nothing": [0.0, 0.0]} for key, text in few],
            )
        if before is not None and before.split()[0] != sha256:
            old, count = before.split()
            self._ask("delete", self._meta, ids=[f"{old}:{number}" for number in range(int(count))])

    def get(self, name: str) -> bytes | None:
        """Return a value, or None if there is none.

        Raises:
            DamagedError: If parts of it are missing.
        """
        while (found := self._value(name)) is not None:
            sha256, count = found.split()
            keys = [f"{sha256}:{number}" for number in range(int(count))]
            rows: dict[str, str] = {}
            for few in _parts(keys, 100):
                got = self._ask("get", self._meta, ids=list(few), output_fields=["name", "value"])
                rows |= {row["name"]: row["value"] for row in got}
            value = b"".join(base64.b64decode(rows.get(key, "")) for key in keys)
            if hashlib.sha256(value).hexdigest() == sha256:
                return value
            if self._value(name) == found:  # else it has been replaced meanwhile
                raise DamagedError(f"{self.address.location}: parts of its {name!r} are missing")
        return None

    def _value(self, name: str) -> str | None:
        if not self._loaded:  # Milvus Lite unloads it when its process ends
            self.load()
        found = self._ask("get", self._meta, ids=[name], output_fields=["value"])
        return str(found[0]["value"]) if found else None

    # Requests

    def _make(self, name: str, schema: Any) -> None:
        self._ask("create_collection", name, schema=schema, consistency_level="Strong")

    def _index(self, name: str, field: str, kind: str, params: dict[str, int]) -> None:
        index = self._kind.prepare_index_params()
        index.add_index(
            field,
            index_name=field,
            index_type=kind,
            metric_type="L2",
            params={"params": params},  # nested, or Milvus Lite uses its own nlist
        )
        self._ask("create_index", name, index)
        self._ask("load_collection", name)

    def _get(self, ids: Iterable[int], fields: list[str]) -> Any:
        return self._ask("get", self._name, ids=[int(id_) for id_ in ids], output_fields=fields)

    def _query(self, **options: Any) -> Any:
        return self._ask("query", self._name, **options)

    def _ask(self, request: str, *values: Any, **options: Any) -> Any:
        if self._closed:
            where = self.address.location
            raise InputError(f"the collection at {where} is closed; open it again")
        try:
            return getattr(self._client, request)(*values, timeout=_SECONDS, **options)
        except self._error as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> StorageError:
        reason = " ".join(str(getattr(error, "message", "") or reason_of(error)).split())
        return StorageError(f"{self.address.location}: Milvus says: {reason[:300]}")


def _parts(values: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Yield values, `size` at a time."""
    rest = iter(values)
    while part := tuple(islice(rest, size)):
        yield part
