"""The REST API."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from imgsearch.errors import NoImageError
from imgsearch.querying.filters import Order
from imgsearch.web.archives import archive
from imgsearch.web.asking import (
    EXPLAIN_FORM,
    FILTER,
    FORM,
    filter_of,
    read_explain_form,
    read_form,
)
from imgsearch.web.delivery import REVALIDATE, Delivery, deliver, is_known
from imgsearch.web.heads import is_head
from imgsearch.web.hosts import peer_of
from imgsearch.web.leaving import while_there
from imgsearch.web.listings import Listing
from imgsearch.web.parameters import (
    IDS,
    PREFIX,
    After,
    Id,
    Number,
    chosen,
    once,
    refusals,
    service_of,
)
from imgsearch.web.schemas import (
    Edge,
    Exif,
    Explained,
    Facets,
    Found,
    Health,
    ImageFacts,
    Images,
    Information,
    Layout,
    Removed,
    Timeline,
)
from imgsearch.web.uploads import Uploads

__all__ = ["api"]

MAX_LAYOUT = 50_000  # images of one page of a layout
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


api = APIRouter(prefix=PREFIX, dependencies=[Depends(once)])


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
    responses=refusals(400, 404, 408, 410, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": FORM}}}},
)
async def query(request: Request) -> Response:
    """Find the images most similar to an uploaded image, or to images of the collection.

    Several images are combined into one query. The response is that of `imgsearch query --json`.
    """
    uploads: Uploads = request.app.state.uploads
    async with uploads.form_of(request) as form:
        answering = service_of(request).query(read_form(form), peer_of(request.client))
        return JSONResponse(await while_there(request, answering))


@api.post(
    "/explain",
    response_model=Explained,
    responses=refusals(400, 404, 408, 410, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": EXPLAIN_FORM}}}},
)
async def explain(request: Request) -> Response:
    """Explain the similarity of a hit and an image, which is uploaded or in the collection.

    The response is that of `imgsearch explain --json`, without the query.
    """
    uploads: Uploads = request.app.state.uploads
    async with uploads.form_of(request) as form:
        answering = service_of(request).explain(read_explain_form(form), peer_of(request.client))
        return JSONResponse(await while_there(request, answering))


async def _listing(  # async as `once`
    request: Request,
    sort: Order = "added",
    reverse: Literal["true", "false"] = "false",
) -> Listing:
    """Return the listing that a request asks for."""
    wanted = filter_of(request.query_params)
    return Listing(wanted=wanted, order=sort, reverse=reverse == "true")


Listed = Annotated[Listing, Depends(_listing)]
_FILTERED = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        | {"description": schema["description"]}
        for name, schema in FILTER.items()
    ]
}


@api.get(
    "/images",
    response_model=Images,
    responses=refusals(404, 422, 503),
    openapi_extra=_FILTERED,
)
async def browse(
    request: Request,
    listing: Listed,
    after: After = 0,
    limit: Annotated[Number, Query(ge=1, le=1000)] = 100,
    ids: Annotated[str | None, Query(pattern=IDS)] = None,
) -> Response:
    """Return images in an order, those that come after one; or those with some ids.

    The parameters of a filter limit them to the images that pass, as in a query. Instead of all
    that, `ids` asks for up to 1,000 images by their ids, separated by commas.
    """
    if ids is None:
        found = await service_of(request).browse(listing, after, limit)
    else:
        found = await service_of(request).facts_of(chosen(request, ids))
    return JSONResponse({"images": found})


@api.get(
    "/layout", response_model=Layout, responses=refusals(404, 422, 503), openapi_extra=_FILTERED
)
async def layout(
    request: Request,
    listing: Listed,
    after: After = 0,
    limit: Annotated[Number, Query(ge=1, le=MAX_LAYOUT)] = MAX_LAYOUT,
) -> Response:
    """Return only ids, widths and heights of the images that `images` returns, but of more."""
    return JSONResponse(await service_of(request).layout(listing, after, limit))


@api.get(
    "/timeline", response_model=Timeline, responses=refusals(422, 503), openapi_extra=_FILTERED
)
async def timeline(request: Request, listing: Listed) -> Response:
    """Return the months of a listing by date (`sort=date`), with their numbers of images."""
    return JSONResponse(await service_of(request).months(listing))


@api.get(
    "/archive",
    response_class=Response,
    responses={
        200: {"description": "A ZIP archive.", "content": {"application/zip": {}}},
        **refusals(404, 422, 503),
    },
)
async def archive_of(request: Request, ids: Annotated[str, Query(pattern=IDS)]) -> Response:
    """Deliver the files of up to 1,000 images as a ZIP archive, as they are.

    Files that are missing or have changed since they were indexed are left out, and a text in the
    archive says so. If a file changes while it is sent, the connection ends too early.
    """
    numbers = chosen(request, ids)
    entries = await service_of(request).entries(numbers)
    if not entries:
        raise NoImageError(numbers[0])
    headers = {"Content-Disposition": 'attachment; filename="images.zip"'}
    if is_head(request.scope):
        return Response(headers=headers, media_type="application/zip")
    chunks = archive(numbers, entries)
    return Delivery(chunks, 200, headers, "application/zip", close=chunks.close)


@api.delete(
    "/images", response_model=Removed, responses={**refusals(403, 422, 503)}
)  # a method that pages of other sites may not use, even where a browser sends no Origin
async def remove(request: Request, ids: Annotated[str, Query(pattern=IDS)]) -> Response:
    """Take up to 1,000 images out of the collection; their files stay.

    Later runs of `imgsearch index` leave them out, too, unless their files are named again.
    """
    return JSONResponse({"removed": await service_of(request).remove(chosen(request, ids))})


@api.get("/facets", response_model=Facets, responses=refusals(503))
async def facets(request: Request) -> Response:
    """Return the folders and the cameras of the collection, with their numbers of images."""
    return JSONResponse(await service_of(request).facets())


@api.get("/images/{id}", response_model=ImageFacts, responses=refusals(404, 422, 503))
async def image(request: Request, id: Id) -> Response:  # noqa: A002 - the name in the path
    """Return the facts about an image."""
    answering = service_of(request).facts(id, peer_of(request.client))
    return JSONResponse(await while_there(request, answering))


@api.get("/images/{id}/exif", response_model=Exif, responses=refusals(404, 410, 422, 503))
async def exif(
    request: Request,
    id: Id,  # noqa: A002 - the name in the path
    location: Literal["true", "false"] = "false",
) -> Response:
    """Return how a picture was taken, and only with `location=true` also where."""
    answering = service_of(request).exif(id, peer_of(request.client), located=location == "true")
    return JSONResponse(await while_there(request, answering))


@api.get(
    "/images/{id}/original",
    response_class=Response,
    responses={
        **_pictures("The file.", "image/*"),
        206: {**_pictures("A range of its bytes.", "image/*")[200]},
        **refusals(404, 410, 416, 422, 503),
    },
)
async def original(request: Request, id: Id) -> Response:  # noqa: A002 - the name in the URL
    """Deliver the file of an image, unless it has changed since it was indexed."""
    entry = await service_of(request).entry(id)
    headers = {
        "ETag": f'"{entry.digest.hex()}"',
        "Cache-Control": REVALIDATE,
        "Content-Security-Policy": SANDBOX,
        "Content-Disposition": f"inline; filename*=UTF-8''{_name(entry.path)}",
    }
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return deliver(request, await service_of(request).original(entry), headers)


@api.get(
    "/images/{id}/thumbnail",
    response_class=Response,
    responses={**_pictures("A small JPEG.", "image/jpeg"), **refusals(404, 410, 422, 503)},
)
async def thumbnail(request: Request, id: Id, size: Edge = Edge.SMALL) -> Response:  # noqa: A002 - the name in the URL
    """Deliver a small upright picture of an image, unless its file has changed since indexing.

    Once made, a thumbnail is kept, even if the file disappears.
    """
    entry = await service_of(request).entry(id)
    headers = {"ETag": f'"{entry.digest.hex()}-{size}"', "Cache-Control": REVALIDATE}
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    making = service_of(request).thumbnail(entry, int(size), peer_of(request.client))
    jpeg = await while_there(request, making)
    return Response(jpeg, headers=headers, media_type="image/jpeg")


@api.get("/info", response_model=Information, responses=refusals(503))
async def info(request: Request) -> Response:
    """Describe the current contents of the collection, and tell whether it is being indexed."""
    return JSONResponse(await service_of(request).info())


@api.get("/health", response_model=Health)
async def health() -> Response:
    """Report that the server is up."""
    return JSONResponse({"status": "ok", "version": version("imgsearch-faiss")})


def _name(path: str) -> str:
    """Return the name of a file, encoded for a header (RFC 8187)."""
    return quote(os.fsencode(os.path.basename(path)).decode("utf-8", "replace"), safe="")
