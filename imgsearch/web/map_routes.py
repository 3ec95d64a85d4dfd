"""The routes of the REST API that return the map of the collection, and make it.

What begins or ends that has a method that pages of other sites may not use, even where a browser
sends no Origin.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from imgsearch.web.delivery import REVALIDATE, is_known
from imgsearch.web.maps import Maps
from imgsearch.web.parameters import PREFIX, once, refusals, service_of
from imgsearch.web.schemas import LayingOut, Map

__all__ = ["maps"]

maps = APIRouter(prefix=PREFIX, dependencies=[Depends(once)])


@maps.get(
    "/map",
    response_model=Map,
    responses={304: {"description": "The client's copy is up to date."}, **refusals(404, 422, 503)},
)
async def map_(request: Request) -> Response:
    """Return the positions of the images on the map that was made last."""
    name, body = await service_of(request).map(Maps.get)
    headers = {"ETag": f'"{name}"', "Cache-Control": REVALIDATE}
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@maps.get("/map/job", response_model=LayingOut, responses=refusals(503))
async def status(request: Request) -> Response:
    """Tell how far the making of the map is, and why the latest failed."""
    return JSONResponse(await service_of(request).map(Maps.status))


@maps.put(
    "/map/job", status_code=202, response_model=LayingOut, responses=refusals(403, 409, 422, 503)
)
async def start(request: Request) -> Response:
    """Begin to make the map, or to bring it up to date, as `imgsearch map` does.

    Nothing in the collection changes. The latest map stays until there is another one.
    """
    service_of(request).check_change()
    await service_of(request).map(Maps.start)
    return await _accepted(request)


@maps.delete("/map/job", status_code=202, response_model=LayingOut, responses=refusals(403, 503))
async def cancel(request: Request) -> Response:
    """Cancel the making of the map, if there is any."""
    service_of(request).check_change()
    await service_of(request).map(Maps.cancel)
    return await _accepted(request)


async def _accepted(request: Request) -> Response:
    return JSONResponse(await service_of(request).map(Maps.status), 202)
