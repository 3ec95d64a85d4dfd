"""The routes of the REST API that find, judge and discard duplicates.

What begins or changes something has a method that pages of other sites may not use, even where a
browser sends no Origin.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from imgsearch.maintenance.duplicates import MIN_SIMILARITY
from imgsearch.web.parameters import (
    IDS,
    PREFIX,
    After,
    Number,
    chosen,
    once,
    refusals,
    service_of,
)
from imgsearch.web.review import Review
from imgsearch.web.schemas import Duplicates, Groups, Judged

__all__ = ["review"]

PAIR = r"^[1-9][0-9]{0,18}(,[1-9][0-9]{0,18}){1,99}$"
NAME = r"^[0-9a-f]{32}$"

review = APIRouter(prefix=PREFIX, dependencies=[Depends(once)])


@review.get("/duplicates", response_model=Duplicates, responses=refusals(503))
async def status(request: Request) -> Response:
    """Tell how far the search for duplicates is, and what the latest one found."""
    return JSONResponse(await service_of(request).review(Review.status))


@review.put(
    "/duplicates",
    status_code=202,
    response_model=Duplicates,
    responses=refusals(403, 409, 422, 503),
)
async def find(
    request: Request,
    min_similarity: Annotated[float, Query(ge=-1, le=1)] = MIN_SIMILARITY,
    keep_in: Annotated[str | None, Query(max_length=4096)] = None,
    prefer: Literal["largest", "oldest", "newest", "sharpest"] | None = None,
) -> Response:
    """Begin to search for duplicates; nothing in the collection changes.

    Images are copies as those of `imgsearch duplicates`, which also describes the parameters;
    `keep_in` is a folder with images of the collection. The latest result stays until there is
    another one.
    """
    service_of(request).check_trusted()
    await service_of(request).review(Review.find, min_similarity, keep_in, prefer)
    return await _accepted(request)


@review.delete(
    "/duplicates", status_code=202, response_model=Duplicates, responses=refusals(403, 503)
)
async def cancel(request: Request) -> Response:
    """Cancel the search, or the discarding of copies, if there is one."""
    service_of(request).check_trusted()
    await service_of(request).review(Review.cancel)
    return await _accepted(request)


@review.get("/duplicates/groups", response_model=Groups, responses=refusals(404, 422, 503))
async def groups(
    request: Request,
    found: Annotated[str | None, Query(pattern=NAME)] = None,
    after: After = 0,
    limit: Annotated[Number, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return groups of copies, those that come after the one with a number.

    A group consists of the image to keep and its copies. What was discarded, or judged not to be a
    copy, is left out. `found` is the name of a result; by default, the latest is returned.
    """
    return JSONResponse(await service_of(request).review(Review.page, found, after, limit))


@review.delete(
    "/duplicates/copies",
    status_code=202,
    response_model=Duplicates,
    responses=refusals(403, 404, 409, 422, 503),
)
async def discard(
    request: Request,
    found: Annotated[str, Query(pattern=NAME)],
    ids: Annotated[str, Query(pattern=IDS)],
) -> Response:
    """Begin to move up to 1,000 copies of a result to the trash of the server's system.

    Each stays unless, at that moment, both it and the image to keep are the files that were
    compared, and their pixels agree. The status tells of those that were moved, and why others were
    not. The collection lists them until it is indexed again.
    """
    service_of(request).check_change()
    numbers = chosen(request, ids, "found")
    await service_of(request).review(Review.discard, found, numbers)
    return await _accepted(request)


@review.put("/duplicates/judgements", response_model=Judged, responses=refusals(403, 404, 422, 503))
async def judge(request: Request, ids: Annotated[str, Query(pattern=PAIR)]) -> Response:
    """Remember in the collection that no two of up to 100 images are copies of one another."""
    return await _judge(request, ids, forget=False)


@review.delete(
    "/duplicates/judgements", response_model=Judged, responses=refusals(403, 404, 422, 503)
)
async def forget(request: Request, ids: Annotated[str, Query(pattern=PAIR)]) -> Response:
    """Take back that no two of up to 100 images are copies of one another."""
    return await _judge(request, ids, forget=True)


async def _judge(request: Request, ids: str, *, forget: bool) -> Response:
    service_of(request).check_change()
    judged = await service_of(request).review(Review.judge, chosen(request, ids), forget=forget)
    return JSONResponse({"judged": judged})


async def _accepted(request: Request) -> Response:
    return JSONResponse(await service_of(request).review(Review.status), 202)
