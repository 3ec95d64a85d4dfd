"""A collection that stays open, and answers many clients at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar

import numpy as np
import platformdirs
from starlette.exceptions import HTTPException

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.embedding.decoder import Content, Decoder, GivenUpError, Origin, Stored
from imgsearch.errors import ImageError, InputError
from imgsearch.files.paths import path_fields
from imgsearch.images.limits import MAX_PIXELS
from imgsearch.images.render import Thumbnail
from imgsearch.querying.hits import Answer, answer_fields
from imgsearch.querying.info import info_fields
from imgsearch.storage.records import Entry
from imgsearch.web.asking import Ask, Crop
from imgsearch.web.decoding import Decoding
from imgsearch.web.options import ServerOptions
from imgsearch.web.originals import Original, check_original
from imgsearch.web.problems import ForgottenError, LostFileError
from imgsearch.web.remembering import Remembered
from imgsearch.web.thumbnails import Thumbnails

__all__ = ["Service"]

P = ParamSpec("P")
T = TypeVar("T")

UPLOADS = 1_000  # embeddings of uploads to remember: 5 KB each
SIZES = 200_000  # image sizes to remember
READERS = 8  # threads for work that waits for the disk more than it computes
CHUNK = 1 << 18  # bytes
PROBE = np.zeros((8, 8, 3), np.uint8)  # an image to warm up the model


class Service:
    """The work behind the routes. Methods that are not coroutines may block."""

    def __init__(self, collection: Collection, options: ServerOptions) -> None:
        self._collection = collection
        self._entries = collection.entries
        self._options = options
        cache = options.cache or platformdirs.user_cache_path("imgsearch") / "thumbnails"
        self._thumbnails = Thumbnails(cache, options.thumbnails)
        self._uploads: Remembered[str, Vectors] = Remembered(UPLOADS)
        self._sizes: Remembered[int, tuple[int, int]] = Remembered(SIZES)  # an id has one content
        self._decoding = Decoding(options)
        self._readers = ThreadPoolExecutor(READERS, "imgsearch-reader")

    def warm_up(self) -> None:
        """Load the model, open the index and start the workers."""
        self._decoding.warm_up()
        self._collection.answer([PROBE], k=1)
        self._collection.info()

    def close(self) -> None:
        """Accept no more work, and end the workers, whatever they are doing."""
        self._decoding.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def query(self, ask: Ask, peer: str = "") -> dict[str, Any]:
        """Answer a query from a peer."""
        if ask.image is not None:
            small = (ask.image.size or 0) <= CHUNK  # quicker to hash than to hand to a thread
            name = _name_of(ask) if small else await self._run(_name_of, ask)
            asked = partial(self._query_upload, ask=ask, name=name)
            try:
                return await self._decode(asked, name, peer)
            except ImageError as error:
                title = ask.image.filename or "image"
                raise InputError(f"{title}: {error.reason}") from error
        if ask.crop is not None:
            entry = await self.entry(ask.like[0].id)
            asked = partial(self._query_part, ask=ask, entry=entry)
            return await self._decode_stored(asked, entry, f"part {ask.crop}", peer)
        return await self._run(self._query, ask)

    async def entry(self, id_: int) -> Entry:
        """Return the catalog entry of an image."""
        return await self._run(self._entries.get, id_)

    async def facts(self, id_: int, peer: str = "") -> dict[str, Any]:
        """Return the facts about an image, including its width and height."""
        entry = await self.entry(id_)
        size = self._sizes.get(id_)
        if size is None:
            try:
                asked = partial(_size_of, entry=entry)
                size = await self._decode_stored(asked, entry, "size", peer)
            except (ImageError, LostFileError):
                return _facts_of(entry, None)
            self._sizes.put(id_, size)
        return _facts_of(entry, size)

    async def browse(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Return the images after an id, in the order in which they were added."""
        return await self._run(self._browse, after, limit)

    async def thumbnail(self, entry: Entry, size: int, peer: str = "") -> bytes:
        """Return a JPEG of an image whose longer edge has `size` pixels."""
        made = await self._run(self._thumbnails.get, entry.digest, size)
        if made is None:
            asked = partial(_thumbnail_of, entry=entry, size=size)
            made = await self._decode_stored(asked, entry, f"thumbnail {size}", peer)
            await self._run(self._thumbnails.put, entry.digest, size, made)
        self._sizes.put(entry.id, (made.width, made.height))
        return made.jpeg

    async def original(self, entry: Entry) -> Original:
        """Open the file of an image."""
        return await self._run(Original, entry)

    async def info(self) -> dict[str, Any]:
        """Describe the contents of the collection, and tell whether it is being indexed."""
        return await self._run(self._info)

    @cached_property
    def _input_size(self) -> int:
        return self._collection.info().model.input_size

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that may wait for the disk."""
        async with self._in_time():
            return await asyncio.wrap_future(self._readers.submit(function, *args, **kwargs))

    async def _decode(self, function: Callable[[Decoder], T], key: str, peer: str) -> T:
        """Run a function with a decoder; see `Decoding.run`."""
        async with self._in_time():
            return await self._decoding.run(function, key=key, peer=peer)

    async def _decode_stored(
        self, function: Callable[[Decoder], T], entry: Entry, what: str, peer: str
    ) -> T:
        """Run a function that decodes an image of the collection."""
        try:
            return await self._decode(function, f"{entry.digest.hex()} {what}", peer)
        except GivenUpError:
            raise
        except ImageError as error:
            if not error.limited:
                await self._run(check_original, entry)
            if error.transient:
                changing = f"{entry.path} is changing while it is read; try again"
                raise LostFileError(changing) from error
            raise

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._options.answer_seconds):
                yield
        except TimeoutError as error:
            late = "the server is too busy at present; try again"
            raise HTTPException(503, late, {"Retry-After": "5"}) from error

    def _info(self) -> dict[str, Any]:
        indexing = self._entries.are_changing()
        return {**info_fields(self._collection.info()), "indexing": indexing}

    def _browse(self, after: int, limit: int) -> list[dict[str, Any]]:
        entries = self._entries.after(after, limit)
        return [_facts_of(entry, self._sizes.get(entry.id)) for entry in entries]

    def _query_upload(self, decoder: Decoder, *, ask: Ask, name: str) -> dict[str, Any]:
        assert ask.image is not None  # noqa: S101 - for the type checker
        content = Content(ask.image.file, ask.image.size or 0)
        embedding = self._embed(decoder, content, ask.crop, self._options.max_pixels)
        self._uploads.put(name, embedding)
        return self._answer(ask, name, embedding)

    def _query_part(self, decoder: Decoder, *, ask: Ask, entry: Entry) -> dict[str, Any]:
        most = max(MAX_PIXELS, self._options.max_pixels)
        embedding = self._embed(decoder, Stored(entry.path, entry.digest), ask.crop, most)
        return self._answer(ask, None, embedding)

    def _query(self, ask: Ask) -> dict[str, Any]:
        if ask.embedding is None:
            return self._answer(ask, None, None)
        remembered = self._uploads.get(ask.embedding)
        if remembered is None:
            raise ForgottenError("the server no longer has that image; send it again")
        return self._answer(ask, ask.embedding, remembered)

    def _embed(
        self, decoder: Decoder, origin: Origin, crop: Crop | None, max_pixels: int
    ) -> Vectors:
        pixels = decoder.pixels(origin, self._input_size, crop, max_pixels)
        embedding: Vectors = self._collection.embed([pixels])[0]
        return embedding

    def _answer(self, ask: Ask, name: str | None, embedding: Vectors | None) -> dict[str, Any]:
        """Answer a query, to which an embedding of the given name may belong."""
        combined = self._combine(ask, embedding)
        options = ask.options.copy()
        if ask.exclude_self:
            options["exclude"] = [[like.id for like in ask.like]]
        (answer,) = self._collection.answer(combined[None], **options)
        shown = Answer(answer.hits[ask.offset :], answer.search)
        fields = answer_fields(shown)
        for hit in fields["hits"]:
            hit.update(_size_fields(self._sizes.get(hit["id"])))
        title = ask.image.filename if ask.image is not None else None
        return {"query": title, **fields, "embedding": name}

    def _combine(self, ask: Ask, embedding: Vectors | None) -> Vectors:
        """Return one embedding for all images of a query."""
        likes = [like for like in ask.like if like.weight > 0]
        unlikes = [like for like in ask.like if like.weight < 0]
        part = ask.crop is not None and ask.image is None  # crop of the only image in `like`
        if embedding is not None and (part or not ask.like):
            return embedding
        wanted = self._entries.embeddings([like.id for like in likes])
        weights = [like.weight for like in likes]
        if embedding is not None:
            wanted, weights = np.concatenate([embedding[None], wanted]), [1.0, *weights]
        if len(wanted) == 1 and not unlikes:
            alone: Vectors = wanted[0]
            return alone
        unwanted = self._entries.embeddings([unlike.id for unlike in unlikes])
        weights += [-unlike.weight for unlike in unlikes]
        return self._collection.combine(wanted, unlike=unwanted, weights=weights)


def _name_of(ask: Ask) -> str:
    """Return a name for an upload, derived from its content and the part to search for."""
    assert ask.image is not None  # noqa: S101 - for the type checker
    hashed = hashlib.sha256(repr(ask.crop).encode())
    ask.image.file.seek(0)
    while chunk := ask.image.file.read(CHUNK):
        hashed.update(chunk)
    return hashed.hexdigest()[:32]


def _size_of(decoder: Decoder, *, entry: Entry) -> tuple[int, int]:
    return decoder.size(Stored(entry.path, entry.digest))


def _thumbnail_of(decoder: Decoder, *, entry: Entry, size: int) -> Thumbnail:
    return decoder.thumbnail(Stored(entry.path, entry.digest), size)


def _facts_of(entry: Entry, size: Sequence[int] | None) -> dict[str, Any]:
    return {
        "id": entry.id,
        **path_fields(entry.path),
        "size": entry.size,
        "mtime": None if entry.mtime_ns is None else entry.mtime_ns / 1e9,
        "digest": entry.digest.hex(),
        **_size_fields(size),
    }


def _size_fields(size: Sequence[int] | None) -> dict[str, int | None]:
    width, height = size or (None, None)
    return {"width": width, "height": height}
