"""Parse and check the form that a client sends as a query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from starlette.datastructures import FormData, UploadFile

from imgsearch.errors import SettingError
from imgsearch.files.paths import is_url
from imgsearch.images.crop import Box
from imgsearch.querying.filters import Filter, FilterKeywords
from imgsearch.querying.options import QueryOptions
from imgsearch.querying.ranking import BANDS, DEFAULT, RANKS, Band, Rank

__all__ = [
    "EXPLAIN_FORM",
    "FILTER",
    "FORM",
    "MAX_ID",
    "Ask",
    "Crop",
    "ExplainAsk",
    "Weighted",
    "filter_of",
    "read_explain_form",
    "read_form",
]

Crop: TypeAlias = tuple[float, float, float, float]

MAX_ID = 2**63 - 1
MAX_K = 1_000
MAX_OFFSET = 100_000
MAX_TEXT = 1_000
MAX_UPLOADS = 50  # of one query
_WHOLE = r"-?[0-9]{1,18}"
_NUMBER = rf"{_WHOLE}(?:\.[0-9]{{1,30}})?(?:[eE][-+]?[0-9]{{1,3}})?"
_LIKE = r"([1-9][0-9]{0,18})(?::(-?(?:[1-9][0-9]{0,3}(?:\.[0-9]{1,6})?|0\.[0-9]{0,5}[1-9])))?"
_NAME = r"[0-9a-f]{32}"
_CROP = rf"{_NUMBER}(?:,{_NUMBER}){{3}}"

#: The fields of a filter, as JSON Schema, and the keyword of `Filter.of` that each stands for.
FILTER: dict[str, dict[str, str]] = {
    "name": {
        "type": "string",
        "description": "A word in the name of the file or of a folder above it, or a pattern.",
    },
    "folder": {"type": "string", "description": "An absolute path of a folder, or a URL."},
    "date_after": {
        "type": "string",
        "description": "Images from this day, month or year on.",
    },
    "date_before": {
        "type": "string",
        "description": "Images from before this day, month or year.",
    },
    "size": {"type": "string", "description": "The size: `>2000` pixels, `>12MP`, `1MB..5MB`."},
    "format": {"type": "string", "description": "The format: `png`, `jpeg`, `raw`."},
    "camera": {
        "type": "string",
        "description": "A word of the camera's make or model, or a pattern.",
    },
}

#: The form as JSON Schema.
FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "image": {
            "type": "string",
            "format": "binary",
            "description": "An image file to search for.",
        },
        "embedding": {
            "type": "array",
            "items": {"type": "string", "pattern": f"^{_NAME}$"},
            "maxItems": MAX_UPLOADS,
            "description": "Names of earlier uploads, from the answers to them, instead of an "
            "image or in addition to it.",
        },
        "like": {
            "type": "array",
            "items": {"type": "string", "pattern": f"^{_LIKE}$"},
            "description": "Ids of images, each with an optional weight (ID:WEIGHT, by default "
            "1); with a negative weight, hits are unlike that image.",
        },
        "text": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_TEXT,
            "pattern": r"\S",
            "description": "Words to search for, if the network of the collection knows words: "
            "`model.words_sha256` of `info` is not null. Hits have no band then.",
        },
        "crop": {
            "type": "string",
            "pattern": f"^{_CROP}$",
            "description": "Left, top, right and bottom of the part to search with, of the image "
            "or of the only `like`: in pixels"
            " of the upright image or, if none is more than 1, as "
            "fractions of width and height.",
        },
        "k": {"type": "integer", "minimum": 1, "maximum": MAX_K, "default": 10},
        "offset": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_OFFSET,
            "default": 0,
            "description": "Number of hits to skip.",
        },
        "recall": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "Recall@10 to keep instead of what the collection promises.",
        },
        "exact": {"type": "boolean", "default": False, "description": "Compare with every image."},
        "min_similarity": {"type": "number", "minimum": -1, "maximum": 1},
        "min_band": {
            "type": "string",
            "enum": list(BANDS),
            "description": "The weakest band of a hit; all are hits otherwise.",
        },
        "rank": {
            "type": "string",
            "enum": list(RANKS),
            "default": DEFAULT,
            "description": "What to rank by: what the collection knows of its images, or cosine.",
        },
        "fold": {
            "type": "boolean",
            "default": False,
            "description": "Return one hit per picture, with its other versions as `copies`.",
        },
        "verify": {
            "type": "boolean",
            "default": False,
            "description": "Compare local features of the query, which is an `image` or a single "
            "`like`, with those of the 50 nearest hits: those that agree come first.",
        },
        **FILTER,
        "include_self": {
            "type": "boolean",
            "default": False,
            "description": "Include the images of `like` in the hits; by default, they are left "
            "out.",
        },
        "exclude_self": {
            "type": "boolean",
            "deprecated": True,
            "description": "Deprecated: the opposite of `include_self`.",
        },
    },
}

_ID = r"[1-9][0-9]{0,18}"

#: The form that asks for an explanation, as JSON Schema.
EXPLAIN_FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["hit"],
    "properties": {
        "hit": {"type": "string", "pattern": f"^{_ID}$", "description": "The id of the hit."},
        "image": {
            "type": "string",
            "format": "binary",
            "description": "The image file that was searched for.",
        },
        "like": {
            "type": "string",
            "pattern": f"^{_ID}$",
            "description": "The id of the image that was searched for, instead of a file.",
        },
        "crop": FORM["properties"]["crop"] | {"description": "The part that was searched for."},
    },
}


@dataclass(frozen=True, slots=True)
class Weighted:
    """An image and its weight among the others, which is negative if hits should be unlike it."""

    id: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A client's query.

    Attributes:
        image: An uploaded image.
        embeddings: The names of earlier uploads.
        like: Images of the collection.
        text: Words to search for; empty for none.
        crop: The part to search for, of the upload or of the only image in `like`.
        offset: Number of hits to skip.
        exclude_self: Whether the images of `like` are left out of the hits.
        fold: Whether versions of the same picture are one hit.
        verify: Whether hits that show the same object as the query come first.
        options: Search options, whose `k` includes the hits to skip.
    """

    image: UploadFile | None
    embeddings: tuple[str, ...]
    like: tuple[Weighted, ...]
    text: str
    crop: Crop | None
    offset: int
    exclude_self: bool
    fold: bool
    verify: bool
    options: QueryOptions

    def __post_init__(self) -> None:
        if self.image is None and not self.embeddings and not self.like and not self.text:
            raise SettingError("the query is empty; send an image, an embedding, a like or a text")
        if len(self.embeddings) > MAX_UPLOADS:
            raise SettingError(f"send at most {MAX_UPLOADS} embeddings")
        others = self.embeddings or self.text
        alone = len(self.like) == 1 and self.like[0].weight > 0 and not others
        if self.crop is not None and self.image is None and not alone:
            raise SettingError("crop applies to an image that is sent, or to a single like")
        single = not (others or self.like) if self.image is not None else alone
        if self.verify and not single:
            raise SettingError("verify compares one image: send it, or a single like")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainAsk:
    """A client's request to explain the similarity of an image and a hit.

    Attributes:
        image: The query as an uploaded image.
        like: The id of the query in the collection, instead of an image.
        crop: The part of the query that was searched for.
        hit: The id of the hit.
    """

    image: UploadFile | None
    like: int | None
    crop: Crop | None
    hit: int

    def __post_init__(self) -> None:
        if (self.image is None) == (self.like is None):
            raise SettingError("send either `image` or `like`")


def read_explain_form(form: FormData) -> ExplainAsk:
    """Return the question in a form; raises as `read_form`."""
    image, fields = _fields_of(form, EXPLAIN_FORM)
    single = _single(fields)
    hit = _id(single, "hit")
    if hit is None:
        raise SettingError("the form has no `hit`; send the id of one")
    return ExplainAsk(image=image, like=_id(single, "like"), crop=_crop(single), hit=hit)


def read_form(form: FormData) -> Ask:
    """Return the query in a form.

    Raises:
        SettingError: If the form makes no sense.
    """
    image, fields = _fields_of(form, FORM)
    several = ("embedding", "like")
    single = _single({name: values for name, values in fields.items() if name not in several})
    offset = int(_number(single, "offset", 0, MAX_OFFSET, whole=True) or 0)
    k = _number(single, "k", 1, MAX_K, whole=True)
    options: QueryOptions = {"k": offset + int(10 if k is None else k)}
    options["recall"] = _number(single, "recall", 0, 1)
    options["min_similarity"] = _number(single, "min_similarity", -1, 1)
    options["exact"] = _flag(single, "exact")
    for name, choices in (("min_band", BANDS), ("rank", RANKS)):
        if name in single and single[name] not in choices:
            named = " or ".join(map(repr, choices))
            raise SettingError(f"{name} is {single[name][:40]!r}; it must be {named}")
    options = {**options, **filter_of(single)}
    if "min_band" in single:
        options["min_band"] = cast("Band", single["min_band"])
    if "rank" in single:
        options["rank"] = cast("Rank", single["rank"])
    return Ask(
        image=image,
        embeddings=tuple(
            _matched("embedding", each, _NAME) for each in fields.get("embedding", [])
        ),
        like=tuple(map(_weighted, fields.get("like", []))),
        text=_text(single),
        crop=_crop(single),
        offset=offset,
        exclude_self=_excludes_self(single),
        fold=_flag(single, "fold"),
        verify=_flag(single, "verify"),
        options=options,
    )


def _fields_of(
    form: FormData, schema: dict[str, Any]
) -> tuple[UploadFile | None, dict[str, list[str]]]:
    """Return the uploaded file and the other fields of a form, all of which the schema has."""
    fields: dict[str, list[str]] = {}
    image = None
    for name, value in form.multi_items():
        if name not in schema["properties"]:
            raise SettingError(f"there is no field {name!r}")
        if isinstance(value, UploadFile) != (name == "image"):
            raise SettingError(f"{name} is {'no' if name != 'image' else 'a'} file")
        if isinstance(value, UploadFile):
            image = value
        else:
            fields.setdefault(name, []).append(value)
    return image, fields


def _single(fields: dict[str, list[str]]) -> dict[str, str]:
    """Return the fields with their only value."""
    for name, values in fields.items():
        if len(values) > 1:
            raise SettingError(f"{name} is given twice")
    return {name: values[0] for name, values in fields.items()}


def _id(fields: dict[str, str], name: str) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not re.fullmatch(_ID, text) or int(text) > MAX_ID:
        raise SettingError(f"{name} is {text[:40]!r}; give the id of an image")
    return int(text)


def filter_of(fields: Mapping[str, str]) -> FilterKeywords:
    """Return the keywords of the filter in some fields.

    Raises:
        SettingError: If a value makes no sense.
    """
    given: dict[str, Any] = {
        name.removeprefix("date_"): fields[name] for name in FILTER if name in fields
    }
    folder = given.get("folder", "/")
    if not folder.startswith("/") and not is_url(folder):
        raise SettingError(f"folder is {folder[:40]!r}; it must be an absolute path or a URL")
    keywords = cast("FilterKeywords", given)
    Filter.of(**keywords)
    return keywords


def _number(
    fields: dict[str, str], name: str, least: float, most: float, *, whole: bool = False
) -> float | None:
    if name not in fields:
        return None
    text = fields[name]
    value = float(text) if re.fullmatch(_WHOLE if whole else _NUMBER, text) else None
    if value is None or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise SettingError(f"{name} is {text[:40]!r}; it must be {kind} from {least:g} to {most:g}")
    return value


def _excludes_self(fields: dict[str, str]) -> bool:
    included, excluded = _flag(fields, "include_self"), _flag(fields, "exclude_self")
    if included and excluded:
        raise SettingError("include_self and exclude_self are mutually exclusive: give one of them")
    return not included and (excluded or "exclude_self" not in fields)


def _flag(fields: dict[str, str], name: str) -> bool:
    text = fields.get(name, "false").lower()
    if text not in ("true", "false"):
        raise SettingError(f"{name} is {text[:40]!r}; it must be true or false")
    return text == "true"


def _matching(fields: dict[str, str], name: str, pattern: str) -> str | None:
    text = fields.get(name)
    return None if text is None else _matched(name, text, pattern)


def _matched(name: str, text: str, pattern: str) -> str:
    if not re.fullmatch(pattern, text):
        raise SettingError(f"{name} is {text[:40]!r}, which is not valid; see /openapi.json")
    return text


def _text(fields: dict[str, str]) -> str:
    text = fields.get("text")
    if text is not None and not (text.strip() and len(text) <= MAX_TEXT):
        raise SettingError(f"text must have 1 to {MAX_TEXT:,} characters")
    return text or ""


def _weighted(text: str) -> Weighted:
    found = re.fullmatch(_LIKE, text)
    if not found or int(found[1]) > MAX_ID:
        raise SettingError(f"like is {text[:40]!r}; give ID or ID:WEIGHT, as 7 or 7:-1")
    return Weighted(int(found[1]), float(found[2] or 1))


def _crop(fields: dict[str, str]) -> Crop | None:
    text = _matching(fields, "crop", _CROP)
    if text is None:
        return None
    left, top, right, bottom = (max(-1e18, min(float(part), 1e18)) for part in text.split(","))
    Box(left, top, right, bottom)  # raises if it is not a valid box
    return left, top, right, bottom
