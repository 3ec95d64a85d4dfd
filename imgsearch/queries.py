"""What may be asked with, and how: a query, its pixels, and the options of a search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.embedding.cropping import Box
from imgsearch.embedding.images import Pixels, pixels_of
from imgsearch.embedding.limits import MAX_PIXELS
from imgsearch.embedding.pictures import part_of, pixels_from
from imgsearch.embedding.sources import located
from imgsearch.errors import ImageError, InputError, SettingError, reason_of

__all__ = ["PathLike", "Query", "QueryOptions", "SearchOptions", "pixels_of_query"]

PathLike: TypeAlias = str | os.PathLike[str]

#: A path, the content of an image file, a Pillow image, pixels, or an embedding.
Query: TypeAlias = PathLike | bytes | Image.Image | npt.NDArray[Any]


class QueryOptions(TypedDict, total=False):
    """The keywords of `Collection.query` and its kin: those of `SearchOptions`."""

    k: int
    recall: float | None
    nprobe: int | None
    exact: bool
    include_self: bool
    exclude_self: bool
    exclude: Sequence[Sequence[PathLike]]
    min_similarity: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How to search, and what of it to show; at most one of `recall`, `nprobe` and `exact`.

    Attributes:
        k: hits a query; fewer if the collection is smaller.
        recall: recall@10 to keep; None for what the collection promises.
        nprobe: inverted lists to scan, whatever recall that has; None for what `recall` takes.
        exact: compare with every image instead.
        include_self: keep the image at each query's own path among its hits.
        exclude_self: leave that image out, which is the default; False means `include_self`.
        exclude: for each query, paths of images to be left out of its hits.
        min_similarity: leave hits out that are less similar than this.

    Raises:
        SettingError: a value makes no sense.
    """

    k: int = 10
    recall: float | None = None
    nprobe: int | None = None
    exact: bool = False
    include_self: bool = False
    exclude_self: bool | None = None
    exclude: Sequence[Sequence[PathLike]] = ()
    min_similarity: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("nprobe", self.nprobe)):
            if value is not None and value < 1:
                raise SettingError(f"{name} is {value}; it must be 1 or more")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise SettingError(f"recall is {self.recall}; it must be more than 0 and at most 1")
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise SettingError(f"min_similarity is {self.min_similarity}; it must be from -1 to 1")
        if self.include_self and self.exclude_self:
            raise SettingError("include_self and exclude_self exclude each other: give one of them")
        if (self.recall is not None) + (self.nprobe is not None) + self.exact > 1:
            raise SettingError(
                "exact search probes no lists, and nprobe sets their number whatever the recall: "
                "give one of recall, nprobe and exact"
            )

    @property
    def leaves_self_out(self) -> bool:
        """Whether the image at a query's own path is to be left out of its hits."""
        return not self.include_self and self.exclude_self is not False


def pixels_of_query(
    query: Query, input_size: int, crop: Box | None, max_pixels: int = MAX_PIXELS
) -> Pixels | None:
    """Return the pixels of a query for the network, None if it is an embedding already.

    Args:
        query: see `Query`.
        input_size: edge of the network's input.
        crop: the part of the image that is meant; None for all of it.
        max_pixels: a file of more is refused; an image that is in memory already is not.

    Returns:
        uint8 `[input_size, input_size, 3]`, RGB.

    Raises:
        ImageError: the image cannot be read, or has no such part.
        InputError: it is no query.
    """
    if isinstance(query, str | os.PathLike):
        return pixels_from(os.fsdecode(located(query)), input_size, crop, max_pixels)
    if isinstance(query, bytes):
        return pixels_from(query, input_size, crop, max_pixels)
    if isinstance(query, Image.Image):
        return _pixels_of(query, input_size, crop)
    if not isinstance(query, np.ndarray):
        raise InputError(
            f"a {type(query).__name__} is no query; give the path of an image, its content as "
            "bytes, a Pillow image, an array of pixels or an embedding"
        )
    if query.dtype == np.uint8 and query.ndim in (2, 3):
        return _pixels_of(_image_of(query), input_size, crop)
    if query.ndim != 1:
        raise InputError(
            f"a {query.dtype} array of the shape {list(query.shape)} is no query; give one "
            "embedding, or pixels as uint8 [h, w, 3]"
        )
    if crop is not None:
        raise InputError("an embedding cannot be cropped; give the image itself")
    return None


def _pixels_of(image: Image.Image, input_size: int, crop: Box | None) -> Pixels:
    try:
        return pixels_of(image, input_size, part_of(image, crop))
    except ImageError:
        raise
    except Exception as error:
        # An image that is opened is not decoded yet: see imgsearch.embedding.images.decode.
        raise ImageError("image", f"cannot be decoded: {reason_of(error)}") from error


def _image_of(pixels: npt.NDArray[Any]) -> Image.Image:
    if pixels.size:
        with suppress(TypeError):
            return Image.fromarray(pixels)
    raise InputError(
        f"an array of the shape {list(pixels.shape)} is no image; give uint8 [h, w, 3]"
    )
