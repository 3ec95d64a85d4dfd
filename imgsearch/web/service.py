"""A collection that stays open, and answers many at once."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar

import numpy as np
import platformdirs
from starlette.exceptions import HTTPException

from imgsearch.embedding.images import open_image
from imgsearch.embedding.pictures import Thumbnail, quick_size, render
from imgsearch.embedding.pipeline import cores
from imgsearch.errors import ImageError, InputError
from imgsearch.forms import answer_fields, info_fields, path_fields
from imgsearch.hits import Answer
from imgsearch.places import AnyCollection
from imgsearch.search.vectors import Vectors
from imgsearch.storage.records import Entry
from imgsearch.web.asking import Ask, Crop
from imgsearch.web.options import ServerOptions
from imgsearch.web.originals import Original, read_original
from imgsearch.web.problems import ForgottenError, LostFileError
from imgsearch.web.remembering import Remembered
from imgsearch.web.thumbnails import Thumbnails

__all__ = ["Service"]

P = ParamSpec("P")
T = TypeVar("T")

UPLOADS = 1_000  # that are remembered: 5 KB each
SIZES = 200_000  # of images, that are remembered
READERS = 8  # threads for what waits for the disk more than it computes
LARGE = 16_000_000  # pixels; of larger uploads, one is decoded at a time
PROBE = np.zeros((8, 8, 3), np.uint8)  # what warms the model up


class Service:
    """Answers what the routes are asked. The methods that are no coroutines may block."""

    def __init__(self, collection: AnyCollection, options: ServerOptions) -> None:
        self._collection = collection
        self._entries = collection.entries
        self._options = options
        cache = options.cache or platformdirs.user_cache_path("imgsearch") / "thumbnails"
        self._thumbnails = Thumbnails(cache, options.thumbnails)
        self._uploads: Remembered[str, Vectors] = Remembered(UPLOADS)
        self._sizes: Remembered[bytes, tuple[int, int]] = Remembered(SIZES)
        self._large = threading.Lock()
        # One more than there are cores: now and then each waits for another to leave Python.
        self._workers = ThreadPoolExecutor(cores() + 1, "imgsearch-worker")
        self._readers = ThreadPoolExecutor(READERS, "imgsearch-reader")

    def warm_up(self) -> None:
        """Load the model, open the index."""
        self._collection.answer([PROBE], k=1)
        self._collection.info()

    def close(self) -> None:
        """Take on nothing more."""
        for pool in (self._workers, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def query(self, ask: Ask) -> dict[str, Any]:
        """Answer a query."""
        embeds = ask.image is not None or ask.crop is not None
        return await self._run(self._workers if embeds else self._readers, self._query, ask)

    async def entry(self, id_: int) -> Entry:
        """Return what is known of an image."""
        return await self._run(self._readers, self._entries.get, id_)

    async def facts(self, id_: int) -> dict[str, Any]:
        """Return what is known of an image, and how large it is."""
        return await self._run(self._workers, self._facts, id_)

    async def browse(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Return images after an id, in the order in which they came."""
        return await self._run(self._readers, self._browse, after, limit)

    async def thumbnail(self, entry: Entry, size: int) -> bytes:
        """Return a JPEG of an image whose longer edge has `size` pixels."""
        made = await self._run(self._readers, self._thumbnails.get, entry.digest, size)
        if made is None:
            made = await self._run(self._workers, self._make_thumbnail, entry, size)
        self._sizes.put(entry.digest, (made.width, made.height))
        return made.jpeg

    async def original(self, entry: Entry) -> Original:
        """Open the file of an image."""
        return await self._run(self._readers, Original, entry)

    async def info(self) -> dict[str, Any]:
        """Return what the collection holds, and whether it is being indexed."""
        return await self._run(self._readers, self._info)

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function in a pool."""
        future = pool.submit(function, *args, **kwargs)
        try:
            async with asyncio.timeout(self._options.answer_seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise HTTPException(503, "this takes too long at present; try again") from error

    def _info(self) -> dict[str, Any]:
        indexing = self._entries.are_changing()
        return {**info_fields(self._collection.info()), "indexing": indexing}

    def _facts(self, id_: int) -> dict[str, Any]:
        entry = self._entries.get(id_)
        try:
            size = self._size_of(entry) or self._render(entry, 1)
        except (ImageError, LostFileError):
            size = None
        return _facts_of(entry, size)

    def _browse(self, after: int, limit: int) -> list[dict[str, Any]]:
        entries = self._entries.after(after, limit)
        return [_facts_of(entry, self._sizes.get(entry.digest)) for entry in entries]

    def _size_of(self, entry: Entry) -> tuple[int, int] | None:
        """Return the upright width and height of an image, None if that takes decoding it."""
        known = self._sizes.get(entry.digest)
        if known is None:
            known = quick_size(read_original(entry))
            if known is not None:
                self._sizes.put(entry.digest, known)
        return known

    def _render(self, entry: Entry, longest: int) -> tuple[int, int]:
        made = render(read_original(entry), longest)
        self._sizes.put(entry.digest, (made.width, made.height))
        return made.width, made.height

    def _make_thumbnail(self, entry: Entry, size: int) -> Thumbnail:
        made = render(read_original(entry), size)
        self._thumbnails.put(entry.digest, size, made)
        return made

    def _query(self, ask: Ask) -> dict[str, Any]:
        name, embedding = self._upload(ask)
        combined = self._combine(ask, embedding)
        options = ask.options.copy()
        if ask.exclude_self:
            there = self._entries.find([like.id for like in ask.like])
            options["exclude"] = [[entry.path for entry in there.values()]]
        (answer,) = self._collection.answer(combined[None], **options)
        shown = Answer(answer.hits[ask.offset :], answer.search)
        fields = answer_fields(shown)
        digests = self._entries.find([hit.id for hit in shown.hits])
        for hit in fields["hits"]:
            entry = digests.get(hit["id"])
            hit.update(_size_fields(self._sizes.get(entry.digest) if entry else None))
        title = ask.image.filename if ask.image is not None else None
        return {"query": title, **fields, "embedding": name}

    def _upload(self, ask: Ask) -> tuple[str | None, Vectors | None]:
        """Return the name and the embedding of an upload; None if none is asked with."""
        if ask.image is not None:
            content = ask.image.file.read()
            embedding = self._embed(content, ask.crop, ask.image.filename or "image")
            name = hashlib.sha256(repr(ask.crop).encode() + content).hexdigest()[:32]
            self._uploads.put(name, embedding)
            return name, embedding
        if ask.embedding is not None:
            remembered = self._uploads.get(ask.embedding)
            if remembered is None:
                raise ForgottenError("that image is remembered no more: send it again")
            return ask.embedding, remembered
        return None, None

    def _embed(self, content: bytes, crop: Crop | None, name: str) -> Vectors:
        most = self._options.max_pixels
        try:
            with open_image(content, most) as image:
                large = image.width * image.height > LARGE
            with self._large if large else nullcontext():
                embedding: Vectors = self._collection.embed([content], crop=crop, max_pixels=most)[
                    0
                ]
        except ImageError as error:
            raise InputError(f"{name}: {error.reason}") from error
        return embedding

    def _combine(self, ask: Ask, embedding: Vectors | None) -> Vectors:
        """Return one embedding for all that is asked with."""
        likes = [like for like in ask.like if like.weight > 0]
        unlikes = [like for like in ask.like if like.weight < 0]
        if ask.crop is not None and ask.image is None:
            entry = self._entries.get(likes[0].id)
            return self._embed(read_original(entry), ask.crop, entry.path)
        if embedding is not None and not ask.like:
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
