"""A collection that stays open, and answers many clients at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import platformdirs
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.embedding.decoder import Content, Decoder, GivenUpError, Origin, Stored
from imgsearch.errors import ImageError, InputError, SettingError
from imgsearch.files.paths import path_fields
from imgsearch.images.decode import Pixels
from imgsearch.images.exif import Exif
from imgsearch.images.limits import MAX_PIXELS
from imgsearch.images.render import Thumbnail
from imgsearch.querying.entries import entry_fields
from imgsearch.querying.explanation import explanation_fields
from imgsearch.querying.hits import Answer, answer_fields
from imgsearch.querying.info import info_fields
from imgsearch.querying.looking import FOLDED, QUERY_EDGE, QUERY_SCALE, VERIFIED, Looker
from imgsearch.querying.options import Words
from imgsearch.storage.layout import backend_of
from imgsearch.storage.records import Entry
from imgsearch.web.asking import Ask, Crop, ExplainAsk
from imgsearch.web.decoding import Decoding
from imgsearch.web.filling import Filling
from imgsearch.web.listings import Listing, Listings
from imgsearch.web.maps import Maps
from imgsearch.web.options import ServerOptions
from imgsearch.web.originals import Original, check_original
from imgsearch.web.problems import ForgottenError, LostFileError
from imgsearch.web.remembering import Remembered
from imgsearch.web.review import Review
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
        self._listings = Listings(self._entries)
        self._options = options
        cache = options.cache or platformdirs.user_cache_path("imgsearch") / "thumbnails"
        self._thumbnails = Thumbnails(cache, options.thumbnails)
        self._uploads: Remembered[str, Vectors] = Remembered(UPLOADS)
        self._sizes: Remembered[int, tuple[int, int]] = Remembered(SIZES)  # an id has one content
        self._decoding = Decoding(options)
        self._looker = Looker(self._entries, self._decoding.lane)
        self._review = Review(collection)
        self._filling = Filling(collection)
        self._maps = Maps(collection)
        self._readers = ThreadPoolExecutor(READERS, "imgsearch-reader")

    def warm_up(self) -> None:
        """Load the model, open the index and start the workers."""
        self._decoding.warm_up()
        self._collection.answer([PROBE], k=1)
        self._collection.info()

    def close(self) -> None:
        """Accept no more work, and end the workers, whatever they are doing."""
        self._decoding.close()
        self._looker.close()
        self._review.close()
        self._filling.close()
        self._maps.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def query(self, ask: Ask, peer: str = "") -> dict[str, Any]:
        """Answer a query from a peer."""
        name = None
        if ask.image is not None:
            small = (ask.image.size or 0) <= CHUNK  # quicker to hash than to hand to a thread
            given = ask.image, ask.crop
            name = _name_of(*given) if small else await self._run(_name_of, *given)
            asked = partial(self._query_upload, ask=ask, name=name)
            with _named(ask.image):
                answer = await self._decode(asked, name, peer)
        elif ask.crop is not None:
            entry = await self.entry(ask.like[0].id)
            asked = partial(self._query_part, ask=ask, entry=entry)
            answer = await self._decode_stored(asked, entry, f"part {ask.crop}", peer)
        else:
            name = next(iter(ask.embeddings), None)
            answer = await self._run(self._query, ask)
        if ask.verify:  # this and the next need decoders of their own
            seen = await self._seen(ask, name, peer)
            k, least = ask.options["k"] + ask.fold * FOLDED, ask.options.get("min_band")
            answer = await self._run(self._looker.verified, answer, seen, k, least)
        if ask.fold:
            answer = await self._run(self._looker.folded, answer, ask.options["k"])
        return self._fields(ask, name, answer)

    async def explain(self, ask: ExplainAsk, peer: str = "") -> dict[str, Any]:
        """Tell where the similarity of an image and a hit comes from."""
        hit = await self.entry(ask.hit)
        seen = await self._stored_pixels(hit, None, peer)
        if ask.image is None:
            entry = await self.entry(ask.like or 0)
            query = await self._stored_pixels(entry, ask.crop, peer)
        else:
            name = await self._run(_name_of, ask.image, ask.crop)
            asked = partial(self._uploaded_pixels, image=ask.image, crop=ask.crop)
            with _named(ask.image):
                query = await self._decode(asked, name, peer)
        explained = await self._run(self._collection.explain_pixels, query, hit, seen)
        return explanation_fields(explained)

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

    async def exif(self, id_: int, peer: str, *, located: bool) -> dict[str, Any]:
        """Return how a picture was taken, and where only if it should be `located`."""
        entry = await self.entry(id_)
        found = await self._decode_stored(partial(_exif_of, entry=entry), entry, "exif", peer)
        there = found.latitude is not None
        shown = found if located else replace(found, latitude=None, longitude=None)
        return {**asdict(shown), "located": there}

    async def browse(self, listing: Listing, after: int, limit: int) -> list[dict[str, Any]]:
        """Return the facts about the images of a listing that come after one."""
        return await self._run(self._browse, listing, after, limit)

    async def facts_of(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return the facts about those images that are in the collection."""
        return await self._run(self._facts_of, ids)

    async def entries(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Return the catalog entries of those images that are in the collection."""
        return await self._run(self._entries.find, ids)

    async def remove(self, ids: Sequence[int]) -> int:
        """Take images out of the collection, and return how many."""
        self.check_change()
        return await self._run(self._collection.remove_ids, ids)

    def check_change(self) -> None:
        """Refuse a request that would change the collection, unless clients may do that.

        Raises:
            HTTPException: 403.
        """
        if not self._options.may_change:
            raise HTTPException(403, "this server does not change its collection")

    def check_trusted(self) -> None:
        """Refuse a request for work that takes long, unless all clients are known.

        Raises:
            HTTPException: 403.
        """
        if not self._options.knows_clients:
            raise HTTPException(403, "this server does that only for clients with its token")

    def check_fill(self) -> None:
        """Refuse a request to look through folders or to index one, unless clients may do that.

        Raises:
            HTTPException: 403.
        """
        if not self._options.may_fill:
            raise HTTPException(403, "this server does that only for people at its machine")

    async def fill(
        self, action: Callable[Concatenate[Filling, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do something that fills a collection without images: a method of `Filling`."""
        return await self._run(action, self._filling, *args, **kwargs)

    async def review(
        self, action: Callable[Concatenate[Review, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do something with the review of duplicates: a method of `Review`."""
        return await self._run(action, self._review, *args, **kwargs)

    async def layout(self, listing: Listing, after: int, limit: int) -> dict[str, Any]:
        """Return ids, widths and heights of the images of a listing that come after one."""
        return await self._run(self._layout, listing, after, limit)

    async def months(self, listing: Listing) -> dict[str, Any]:
        """Return the months of a listing by date, with their numbers of images."""
        months = await self._run(self._listings.months, listing)
        return {"months": [{"month": month, "images": count} for month, count in months]}

    async def map(
        self, action: Callable[Concatenate[Maps, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do something with the map: a method of `Maps`."""
        return await self._run(action, self._maps, *args, **kwargs)

    async def facets(self) -> dict[str, Any]:
        """Return the folders and cameras of the collection, and their numbers of images."""
        return await self._run(self._facets)

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
        read_only = not self._options.may_change
        facts = info_fields(self._collection.info())
        may_fill = self._options.may_fill and backend_of(facts["directory"]) is None
        told = {"indexing": indexing, "read_only": read_only, "may_fill": may_fill}
        return {**facts, **told}

    def _browse(self, listing: Listing, after: int, limit: int) -> list[dict[str, Any]]:
        return self._facts_of(self._listings.page(listing, after, limit))

    def _facts_of(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        found = self._entries.find(ids)
        return [_facts_of(found[id_], self._sizes.get(id_)) for id_ in ids if id_ in found]

    def _layout(self, listing: Listing, after: int, limit: int) -> dict[str, Any]:
        ids = self._listings.page(listing, after, limit)
        known = zip(ids, self._entries.sizes(ids), strict=True)
        sizes = [size or self._sizes.get(id_) for id_, size in known]
        return {
            "total": self._listings.count(listing),
            "ids": ids,
            "widths": [size and size[0] for size in sizes],
            "heights": [size and size[1] for size in sizes],
        }

    def _facets(self) -> dict[str, Any]:
        return {
            "folders": [
                {**path_fields(path), "images": count} for path, count in self._entries.folders()
            ],
            "cameras": [
                {"camera": camera, "images": count} for camera, count in self._entries.cameras()
            ],
        }

    def _query_upload(self, decoder: Decoder, *, ask: Ask, name: str) -> Answer:
        assert ask.image is not None  # noqa: S101 - for the type checker
        others = self._remembered(ask)
        pixels = self._uploaded_pixels(decoder, image=ask.image, crop=ask.crop)
        embedding = self._embed(pixels)
        self._uploads.put(name, embedding)
        return self._answer(ask, [embedding, *others])

    def _query_part(self, decoder: Decoder, *, ask: Ask, entry: Entry) -> Answer:
        embedding = self._embed(self._pixels_of(decoder, entry=entry, crop=ask.crop))
        return self._answer(ask, [embedding])

    def _query(self, ask: Ask) -> Answer:
        return self._answer(ask, self._remembered(ask))

    def _remembered(self, ask: Ask) -> list[Vectors]:
        """Return the embeddings of the earlier uploads that a query names."""
        remembered = []
        for name in ask.embeddings:
            embedding = self._uploads.get(name)
            if embedding is None:
                raise ForgottenError("the server no longer has that image; send it again")
            remembered.append(embedding)
        return remembered

    async def _seen(self, ask: Ask, name: str | None, peer: str) -> Pixels:
        """Return the only image of a query in grey, for finding its local features."""
        if ask.image is None:
            entry = await self.entry(ask.like[0].id)
            asked = partial(self._grey, origin=Stored(entry.path, entry.digest), crop=ask.crop)
            return await self._decode_stored(asked, entry, f"grey {ask.crop}", peer)
        content = Content(ask.image.file, ask.image.size or 0)
        asked = partial(self._grey, origin=content, crop=ask.crop)
        with _named(ask.image):
            return await self._decode(asked, f"{name} grey", peer)

    def _grey(self, decoder: Decoder, *, origin: Origin, crop: Crop | None) -> Pixels:
        most = self._options.max_pixels
        most = most if isinstance(origin, Content) else max(MAX_PIXELS, most)
        return decoder.grey(origin, QUERY_EDGE, crop, most, QUERY_SCALE)

    async def _stored_pixels(self, entry: Entry, crop: Crop | None, peer: str) -> Pixels:
        """Return the network's input for an image of the collection, or a part of it."""
        asked = partial(self._pixels_of, entry=entry, crop=crop)
        what = "pixels" if crop is None else f"part {crop}"
        return await self._decode_stored(asked, entry, what, peer)

    def _pixels_of(self, decoder: Decoder, *, entry: Entry, crop: Crop | None) -> Pixels:
        most = max(MAX_PIXELS, self._options.max_pixels)
        return decoder.pixels(Stored(entry.path, entry.digest), self._input_size, crop, most)

    def _uploaded_pixels(self, decoder: Decoder, *, image: UploadFile, crop: Crop | None) -> Pixels:
        content = Content(image.file, image.size or 0)
        return decoder.pixels(content, self._input_size, crop, self._options.max_pixels)

    def _embed(self, pixels: Pixels) -> Vectors:
        embedding: Vectors = self._collection.embed([pixels])[0]
        return embedding

    def _embed_words(self, text: str) -> Vectors:
        if self._collection.info().model.words_sha256 is None:
            raise SettingError("the network of this collection knows no words; send an image")
        embedding: Vectors = self._collection.embed([Words(text)])[0]
        return embedding

    def _answer(self, ask: Ask, given: list[Vectors]) -> Answer:
        """Answer a query, to which some embeddings belong besides those of the collection."""
        options = ask.options.copy()
        if ask.text:
            given = [*given, self._embed_words(ask.text)]
            options["by_words"] = True
        combined = self._combine(ask, given)
        if ask.exclude_self:
            options["exclude"] = [[like.id for like in ask.like]]
        if ask.fold:
            options["k"] += FOLDED
        if ask.verify:  # the nearest by cosine: see `imgsearch.querying.looking.before_looking`
            options |= {"k": max(options["k"], VERIFIED), "rank": "cosine", "min_band": None}
        (answer,) = self._collection.answer(combined[None], **options)
        self._learn_sizes([hit.id for hit in answer.hits])
        return answer

    def _learn_sizes(self, ids: Sequence[int]) -> None:
        """Look up the sizes of images in the catalog, so that a page can lay them out at once."""
        unknown = [id_ for id_ in ids if self._sizes.get(id_) is None]
        for id_, entry in self._entries.find(unknown).items() if unknown else ():
            if entry.facts.width and entry.facts.height:
                self._sizes.put(id_, (entry.facts.width, entry.facts.height))

    def _fields(self, ask: Ask, name: str | None, answer: Answer) -> dict[str, Any]:
        """Return the fields of an answer; `name` is that of an uploaded image."""
        shown = Answer(answer.hits[ask.offset :], answer.search)
        fields = answer_fields(shown)
        for hit in fields["hits"]:
            hit.update(_size_fields(self._sizes.get(hit["id"])))
        title = ask.image.filename if ask.image is not None else None
        return {"query": title, **fields, "embedding": name}

    def _combine(self, ask: Ask, given: list[Vectors]) -> Vectors:
        """Return one embedding for all images of a query."""
        likes = [like for like in ask.like if like.weight > 0]
        unlikes = [like for like in ask.like if like.weight < 0]
        part = ask.crop is not None and ask.image is None  # crop of the only image in `like`
        if len(given) == 1 and (part or not ask.like):
            return given[0]
        wanted = self._entries.embeddings([like.id for like in likes])
        weights = [*[1.0] * len(given), *(like.weight for like in likes)]
        if given:
            wanted = np.concatenate([np.stack(given), wanted])
        if len(wanted) == 1 and not unlikes:
            alone: Vectors = wanted[0]
            return alone
        unwanted = self._entries.embeddings([unlike.id for unlike in unlikes])
        weights += [-unlike.weight for unlike in unlikes]
        return self._collection.combine(wanted, unlike=unwanted, weights=weights)


@contextmanager
def _named(image: UploadFile) -> Iterator[None]:
    """Make an error about an upload name its file."""
    try:
        yield
    except ImageError as error:
        raise InputError(f"{image.filename or 'image'}: {error.reason}") from error


def _name_of(image: UploadFile, crop: Crop | None) -> str:
    """Return a name for an upload, derived from its content and the part to search for."""
    hashed = hashlib.sha256(repr(crop).encode())
    image.file.seek(0)
    while chunk := image.file.read(CHUNK):
        hashed.update(chunk)
    return hashed.hexdigest()[:32]


def _size_of(decoder: Decoder, *, entry: Entry) -> tuple[int, int]:
    return decoder.size(Stored(entry.path, entry.digest))


def _exif_of(decoder: Decoder, *, entry: Entry) -> Exif:
    return decoder.exif(Stored(entry.path, entry.digest))


def _thumbnail_of(decoder: Decoder, *, entry: Entry, size: int) -> Thumbnail:
    return decoder.thumbnail(Stored(entry.path, entry.digest), size)


def _facts_of(entry: Entry, size: Sequence[int] | None) -> dict[str, Any]:
    fields = entry_fields(entry)
    return fields if size is None else {**fields, **_size_fields(size)}


def _size_fields(size: Sequence[int] | None) -> dict[str, int | None]:
    width, height = size or (None, None)
    return {"width": width, "height": height}
