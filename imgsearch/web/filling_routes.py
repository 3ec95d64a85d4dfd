"""The routes of the REST API that fill a collection without images, for people at this machine.

What begins or ends a run has a method that pages of other sites may not use, even where a browser
sends no Origin.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from imgsearch.web.filling import Filling
from imgsearch.web.parameters import PREFIX, once, refusals, service_of
from imgsearch.web.schemas import Folders, Indexing

__all__ = ["filling"]

filling = APIRouter(prefix=PREFIX, dependencies=[Depends(once)])


@filling.get("/folders", response_model=Folders, responses=refusals(403, 422, 503))
async def folders(request: Request, path: Annotated[str, Query(max_length=4096)] = "") -> Response:
    """Return the folders in a folder below the home folder, or in the home folder itself.

    Only for people at this machine, and only while the collection has no images. Hidden folders are
    left out, and so are links that lead out of the home folder.
    """
    service_of(request).check_fill()
    return JSONResponse(await service_of(request).fill(Filling.folders, path))


@filling.get("/index", response_model=Indexing, responses=refusals(503))
async def status(request: Request) -> Response:
    """Tell how far the run that this server has begun is, or how it ended."""
    return JSONResponse(await service_of(request).fill(Filling.status))


@filling.put(
    "/index",
    status_code=202,
    response_model=Indexing,
    responses=refusals(403, 409, 422, 503),
)
async def start(
    request: Request, folder: Annotated[str, Query(min_length=1, max_length=4096)]
) -> Response:
    """Begin to index a folder below the home folder, as `imgsearch index` does.

    Only for people at this machine, and only while the collection has no images.
    """
    service_of(request).check_fill()
    await service_of(request).fill(Filling.start, folder)
    return await _accepted(request)


@filling.delete("/index", status_code=202, response_model=Indexing, responses=refusals(403, 503))
async def cancel(request: Request) -> Response:
    """End the run, if there is one; the images that it has added stay."""
    service_of(request).check_fill()
    await service_of(request).fill(Filling.cancel)
    return await _accepted(request)


async def _accepted(request: Request) -> Response:
    return JSONResponse(await service_of(request).fill(Filling.status), 202)
