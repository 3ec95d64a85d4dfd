"""The REST API."""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BeforeValidator
from starlette.exceptions import HTTPException

from imgsearch.web.asking import FORM, MAX_ID, read_form
from imgsearch.web.delivery import deliver, is_known
from imgsearch.web.hosts import peer_of
from imgsearch.web.leaving import while_there
from imgsearch.web.problems import PROBLEMS
from imgsearch.web.schemas import Edge, Found, Health, ImageFacts, Images, Information
from imgsearch.web.service import Service
from imgsearch.web.uploads import Uploads

__all__ = ["api"]

SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
REVALIDATE = "private, no-cache"  # by the ETag: another collection may be served here tomorrow

_NUMBER = re.compile(r"0|-?[1-9][0-9]*")


def _digits(given: Any) -> Any:
    """Refuse what only Python takes for a number: `+1`, `1_0`, ` 1`, `０`."""
    if isinstance(given, str) and not _NUMBER.fullmatch(given):
        raise ValueError("give a whole number in digits, without leading zeros")
    return given


Number = Annotated[int, BeforeValidator(_digits)]
Id = Annotated[Number, Path(ge=1, le=MAX_ID)]


async def _once(request: Request) -> None:  # async, or FastAPI runs it in another thread
    """Refuse a parameter that is given more than once, as it is ambiguous."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise HTTPException(400, f"{name[:40]!r} is given more than once")


api = APIRouter(prefix="/api/v1", dependencies=[Depends(_once)])


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": PROBLEMS[status]} for status in statuses}


def _pictures(what: str, *types: str) -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    etag = {"ETag": {"schema": {"type": "string"}}}
    return {
        200: {"description": what, "content": dict.fromkeys(types, binary), "headers": etag},
        304: {"description": "The client's copy is up to date.", "headers": etag},
    }


@api.post(
    "/query",
    response_model=Found,
    responses=_refusals(400, 404, 408, 410, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": FORM}}}},
)
async def query(request: Request) -> Response:
    """Find the images most similar to an uploaded image, or to images of the collection.

    Several images are combined into one query. The response is that of `imgsearch query --json`.
    """
    uploads: Uploads = request.app.state.uploads
    async with uploads.form_of(request) as form:
        answering = _service(request).query(read_form(form), peer_of(request.client))
        return JSONResponse(await while_there(request, answering))


@api.get("/images", response_model=Images, responses=_refusals(422, 503))
async def browse(
    request: Request,
    after: Annotated[Number, Query(ge=0, le=MAX_ID)] = 0,
    limit: Annotated[Number, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return the images after an id, in the order in which they were added."""
    return JSONResponse({"images": await _service(request).browse(after, limit)})


@api.get("/images/{id}", response_model=ImageFacts, responses=_refusals(404, 422, 503))
async def image(request: Request, id: Id) -> Response:  # noqa: A002 - the name in the path
    """Return the facts about an image."""
    answering = _service(request).facts(id, peer_of(request.client))
    return JSONResponse(await while_there(request, answering))


@api.get(
    "/images/{id}/original",
    response_class=Response,
    responses={
        **_pictures("The file.", "image/*"),
        206: {**_pictures("A range of its bytes.", "image/*")[200]},
        **_refusals(404, 410, 416, 422, 503),
    },
)
async def original(request: Request, id: Id) -> Response:  # noqa: A002 - the name in the URL
    """Deliver the file of an image, unless it has changed since it was indexed."""
    entry = await _service(request).entry(id)
    headers = {
        "ETag": f'"{entry.digest.hex()}"',
        "Cache-Control": REVALIDATE,
        "Content-Security-Policy": SANDBOX,
        "Content-Disposition": f"inline; filename*=UTF-8''{_name(entry.path)}",
    }
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return deliver(request, await _service(request).original(entry), headers)


@api.get(
    "/images/{id}/thumbnail",
    response_class=Response,
    responses={**_pictures("A small JPEG.", "image/jpeg"), **_refusals(404, 410, 422, 503)},
)
async def thumbnail(request: Request, id: Id, size: Edge = Edge.SMALL) -> Response:  # noqa: A002 - the name in the URL
    """Deliver a small upright picture of an image, unless its file has changed since indexing.

    Once made, a thumbnail is kept, even if the file disappears.
    """
    entry = await _service(request).entry(id)
    headers = {"ETag": f'"{entry.digest.hex()}-{size}"', "Cache-Control": REVALIDATE}
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    making = _service(request).thumbnail(entry, int(size), peer_of(request.client))
    jpeg = await while_there(request, making)
    return Response(jpeg, headers=headers, media_type="image/jpeg")


@api.get("/info", response_model=Information, responses=_refusals(503))
async def info(request: Request) -> Response:
    """Describe the current contents of the collection, and tell whether it is being indexed."""
    return JSONResponse(await _service(request).info())


@api.get("/health", response_model=Health)
async def health() -> Response:
    """Report that the server is up."""
    return JSONResponse({"status": "ok", "version": version("imgsearch-faiss")})


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _name(path: str) -> str:
    """Return the name of a file, encoded for a header (RFC 8187)."""
    return quote(os.fsencode(os.path.basename(path)).decode("utf-8", "replace"), safe="")
