"""Embed queries with the model of a collection.

What decodes images is imported only for the first image: indexing needs it in other processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.ann.vectors import Vectors, as_queries
from imgsearch.embedding.models import Shapes, find_network, is_file
from imgsearch.embedding.runtime import (
    OnnxRuntime,
    ParallelRuntime,
    Runtime,
    TorchRuntime,
    open_model,
    pick_device,
    torch_devices,
)
from imgsearch.errors import ImageError, InputError, ModelError, UntrustedModelError, reason_of
from imgsearch.files.paths import located
from imgsearch.images.crop import Box
from imgsearch.images.limits import LIMITS, Limits
from imgsearch.querying.options import Query, Words, as_array, is_array
from imgsearch.storage.records import Entry, ModelRecord

if TYPE_CHECKING:
    from imgsearch.embedding.words import WordEmbedder
    from imgsearch.images.decode import Pixels

__all__ = ["Embedder", "indexed_pixels", "open_on_gpus", "opened_query"]

_NO_IMAGE = "an embedding has no pixels to look at; give the image itself"
_CHANNELS = (1, 3, 4)
_NEAR = 0.01  # tolerance around 1, the squared norm of an embedding; rows of pixels have any norm


class Embedder:
    """An embedder of queries that opens its model for the first image. Safe for concurrent use."""

    def __init__(
        self,
        record: ModelRecord,
        device: str,
        model: Callable[[], Path],
        threads: int = 0,
        *,
        words: Callable[[], Path] | None = None,
        trust_model: bool = False,
    ) -> None:
        """Store the arguments; nothing is opened before the first image.

        Args:
            record: Record of the model that made the collection.
            device: Device to embed on; "auto" means the CPU, because a query is a handful of
                images.
            model: Function that returns the path of the ONNX file, after checking that the file is
                the recorded one.
            threads: Number of threads that embed one image on the CPU; 0 for one per core.
            words: Likewise for the text tower, if the record has one.
            trust_model: Whether a model that imgsearch did not export may be run.
        """
        self._record = record
        self._device = device
        self._path = model
        self._words_path = words
        self._words: WordEmbedder | None = None
        self._threads = threads
        self._trust_model = trust_model
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self._mapper: OnnxRuntime | None = None

    def embed(
        self,
        queries: Sequence[Query] | Vectors,
        crop: Box | None = None,
        limits: Limits = LIMITS,
    ) -> Vectors:
        """See `imgsearch.collection.Collection.embed`."""
        if isinstance(queries, np.ndarray) and crop is None:
            return as_queries(queries, self._record.dim)
        rows = [self._embed_one(query, crop, limits) for query in queries]
        return np.concatenate(rows) if rows else np.empty((0, self._record.dim), np.float32)

    def maps(self, pixels: Pixels) -> Vectors:
        """Return feature maps, on the CPU: float32 `[n, rows, columns, dim]`.

        Args:
            pixels: RGB pixels, uint8 `[n, input_size, input_size, 3]`, as `pixels_of` returns them.

        Raises:
            ModelError: If the model is a foreign one, or has no feature map.
        """
        with self._lock:
            if self._mapper is None:
                self._mapper = self._open_mapper()
        return self._mapper.maps(pixels)

    def pixels_of(self, query: Query, crop: Box | None = None, limits: Limits = LIMITS) -> Pixels:
        """Return the pixels of a query for the network, uint8 `[input_size, input_size, 3]`.

        Raises:
            ImageError: If the image cannot be read, or has no such part.
            InputError: If the query is not an image.
        """
        pixels = _pixels_of_query(query, self._record.input_size, crop, limits)
        if pixels is None:
            raise InputError(_NO_IMAGE)
        return pixels

    def _open_mapper(self) -> OnnxRuntime:
        path, shapes = self._path(), Shapes(self._record.input_size, self._record.dim)
        try:
            return OnnxRuntime(path, threads=self._threads, shapes=shapes, maps=True)
        except UntrustedModelError as error:
            raise ModelError(
                f"{path} was not exported by imgsearch, so similarities cannot be explained"
            ) from error

    def close(self) -> None:
        """End the process of a foreign model, whatever it is doing."""
        close = getattr(self._runtime, "close", None)
        if close is not None:
            close()

    def _embed_words(self, text: str) -> Vectors:
        if self._words_path is None or self._record.words_sha256 is None:
            raise ModelError(
                f"this collection was made with {self._record.name}, which knows no words; to "
                "search by words, make one with a network of open_clip, as in "
                "`imgsearch index --model open_clip:ViT-B-32/laion2b_s34b_b79k FOLDER`"
            )
        from imgsearch.embedding.words import WordEmbedder

        with self._lock:
            if self._words is None:
                path, dim = self._words_path(), self._record.dim
                self._words = WordEmbedder(path, dim, threads=self._threads)
        return self._words.embed(text)

    def _embed_one(self, query: Query, crop: Box | None, limits: Limits) -> Vectors:
        if isinstance(query, Words):
            if crop is not None:
                raise InputError("words cannot be cropped; give an image")
            return self._embed_words(query.text)
        shape: tuple[int, ...] = getattr(query, "shape", ())
        if len(shape) == 2 and shape[0] > 1 and shape[1] == self._record.dim:
            rows = as_array(query)
            if rows.dtype.kind == "f" and (np.abs(np.vecdot(rows, rows) - 1) < _NEAR).all():
                raise InputError(
                    f"{shape[0]} embeddings are not one query; give one embedding, or give them to "
                    "query_many; pixels are uint8 [h, w, 3]"
                )
        pixels = _pixels_of_query(query, self._record.input_size, crop, limits)
        if pixels is None:
            return as_queries(as_array(query), self._record.dim)
        return self._model().embed(pixels[None])

    def _model(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                on_cpu = self._device == "auto" or is_file(self._record.name)
                device = "cpu" if on_cpu else pick_device(self._device)
                if device == "cpu":
                    self._runtime = open_model(
                        self._path(),
                        Shapes(self._record.input_size, self._record.dim),
                        threads=self._threads,
                        trust=self._trust_model,
                    )
                else:
                    self._runtime = _open_torch(self._record, device)
            return self._runtime


def open_on_gpus(model: ModelRecord, device: str) -> Runtime:
    """Open a collection's model on all GPUs of a kind, or raise `ModelError`."""
    runtimes = [_open_torch(model, one) for one in torch_devices(device)]
    return runtimes[0] if len(runtimes) == 1 else ParallelRuntime(runtimes)


def _open_torch(model: ModelRecord, device: str) -> TorchRuntime:
    return TorchRuntime(find_network(model.name), model.weights, model.weights_sha256, device)


@contextmanager
def opened_query(query: Query, limits: Limits = LIMITS) -> Iterator[Image.Image]:
    """Open a query that is an image.

    Raises:
        ImageError: If the image cannot be read, or fails while it is in use.
        InputError: If the query is not an image.
    """
    from imgsearch.images.opening import open_image

    if isinstance(query, str | os.PathLike):
        query = os.fsdecode(located(query))
    if isinstance(query, bytearray | memoryview):
        query = bytes(query)
    if isinstance(query, str | bytes):
        with open_image(query, limits) as image:
            yield image
    elif isinstance(query, Words):
        raise InputError(_NO_IMAGE)
    elif isinstance(query, Image.Image):
        yield query.copy()  # the caller may change it
    elif (array := as_array(query)).ndim in (2, 3) and array.shape[0] > 1:
        yield _image_of(array)
    else:
        raise InputError(_NO_IMAGE)


def indexed_pixels(entry: Entry, input_size: int, limits: Limits = LIMITS) -> Pixels:
    """Return the pixels of an image of a collection, uint8 `[input_size, input_size, 3]`.

    Raises:
        ImageError: If its file cannot be read, or has changed since it was indexed.
    """
    from imgsearch.images.decode import ImageFile

    with ImageFile(entry.path) as file:
        if file.digest != entry.digest:
            changed = "has changed since it was indexed; run `imgsearch index` to update it"
            raise ImageError(entry.path, changed, transient=True)
        return file.decode(input_size, limits)


def _pixels_of_query(
    query: Query, input_size: int, crop: Box | None, limits: Limits = LIMITS
) -> Pixels | None:
    """Return the pixels of a query for the network, or None if the query is an embedding.

    Args:
        query: Query of any kind: see `Query`.
        input_size: Edge of the network's input in pixels.
        crop: Part of the image to search for; None for all of it.
        limits: Maximum pixels of a file; an image already in memory may have any size.

    Returns:
        RGB pixels, uint8 `[input_size, input_size, 3]`.

    Raises:
        ImageError: If the image cannot be read, or has no such part.
        InputError: If the query is not valid.
    """
    from imgsearch.images.render import pixels_from

    if isinstance(query, str | os.PathLike):
        return pixels_from(os.fsdecode(located(query)), input_size, crop, limits)
    if hasattr(query, "read") and not isinstance(query, Image.Image):
        query = query.read()  # an open file
    if isinstance(query, bytes | bytearray | memoryview):
        return pixels_from(bytes(query), input_size, crop, limits)
    if isinstance(query, Image.Image):
        return _pixels_of(query, input_size, crop)
    if isinstance(query, Words):
        raise InputError("words have no pixels to look at; give the image itself")
    if not is_array(query) and not isinstance(query, list | tuple):
        raise InputError(
            f"a {type(query).__name__} is not a valid query; give the path of an image, "
            "its content as bytes, a Pillow image, an array of pixels or an embedding"
        )
    array = as_array(query)
    if array.ndim in (2, 3) and not (array.ndim == 2 and array.shape[0] == 1):
        return _pixels_of(_image_of(array), input_size, crop)
    if array.ndim not in (1, 2):
        raise InputError(
            f"a {array.dtype} array of the shape {list(array.shape)} is not a valid query; "
            "give one embedding, or pixels as uint8 [h, w, 3]"
        )
    if crop is not None:
        raise InputError("an embedding cannot be cropped; give the image itself")
    return None


def _pixels_of(image: Image.Image, input_size: int, crop: Box | None) -> Pixels:
    from imgsearch.images.decode import pixels_of
    from imgsearch.images.render import part_of

    if not image.width * image.height:
        raise ImageError("image", "has no pixels")
    try:
        return pixels_of(image, input_size, part_of(image, crop))
    except ImageError:
        raise
    except Exception as error:
        # Pillow decodes an image after opening it: see imgsearch.images.decode.decode.
        raise ImageError("image", f"cannot be decoded: {reason_of(error)}") from error


def _image_of(pixels: npt.NDArray[Any]) -> Image.Image:
    """Convert an array of integers from 0 to 255, or other numbers from 0 to 1, to an image."""
    shape = list(pixels.shape)
    if not pixels.size:
        raise InputError(f"an array of the shape {shape} is not an image; give uint8 [h, w, 3]")
    if pixels.ndim == 3 and shape[0] in (1, 3) and shape[2] not in _CHANNELS:
        pixels = np.moveaxis(pixels, 0, -1)  # torch puts channels first
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype.kind not in "buif":
        raise InputError(f"an array of {pixels.dtype} is not an image; give uint8 [h, w, 3]")
    most = 1 if pixels.dtype.kind in "bf" else 255
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= most):
        raise InputError(
            f"pixels that are {pixels.dtype} go from 0 to {most}, but these go from {low:g} to "
            f"{high:g}; give uint8 [h, w, 3]"
        )
    if most == 1:
        pixels = np.rint(pixels.astype(np.float32) * 255)
    with suppress(TypeError):
        return Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    raise InputError(f"an array of the shape {shape} is not an image; give uint8 [h, w, 3]")
