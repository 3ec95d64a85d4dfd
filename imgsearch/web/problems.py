"""Errors as `application/problem+json` (RFC 9457): one clear line in `detail`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from imgsearch.errors import (
    BusyError,
    ImgsearchError,
    InputError,
    NoCollectionError,
    NoImageError,
    NoMapError,
    SettingError,
)

__all__ = ["PROBLEMS", "ForgottenError", "LostFileError", "handle_errors", "problem"]

MEDIA_TYPE = "application/problem+json"

#: The meaning of each status, for the OpenAPI document.
PROBLEMS = {
    400: "The request is malformed.",
    401: "A token is missing, or it is wrong.",
    403: "The request comes from a page of another site, or would change what this server only "
    "shows.",
    404: "There is no such image, no map, or the server no longer knows that upload, that place in "
    "a listing or that result.",
    405: "The method is not allowed here.",
    408: "The request took too long to arrive.",
    409: "A search for duplicates, the discarding of copies, the indexing of a folder, or the "
    "making of the map is in progress.",
    410: "The file of the image is gone, or has changed since it was indexed.",
    413: "The request is too large.",
    415: "The body is not multipart/form-data.",
    416: "The file has no such range of bytes.",
    421: "The Host header names another server.",
    422: "A value is not valid, or an image cannot be used.",
    429: "Too many wrong tokens came from this address; try again later.",
    500: "The collection is damaged, or cannot be read.",
    503: "The server is too busy, or the collection cannot be read at present; try again.",
}


class ForgottenError(InputError):
    """An upload, an image of a listing, or a result that the server no longer knows."""


class LostFileError(InputError):
    """An image whose file is missing, or has changed since it was indexed."""


_STATUS: tuple[tuple[type[ImgsearchError], int], ...] = (
    (NoImageError, 404),
    (NoMapError, 404),
    (ForgottenError, 404),
    (LostFileError, 410),
    (NoCollectionError, 503),
    (BusyError, 503),
    (InputError, 422),
    (SettingError, 422),
    (ImgsearchError, 500),
)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem response with a status and a detail."""
    fields = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return JSONResponse(
        {**fields, "detail": detail}, status, headers=headers, media_type=MEDIA_TYPE
    )


def handle_errors(
    app: FastAPI, routes: Sequence[BaseRoute], look_again: Callable[[], bool]
) -> None:
    """Make an application turn every exception into a problem response.

    Args:
        app: Application.
        routes: Routes of which a response to another method names the methods.
        look_again: See `imgsearch.web.app.create_app`.
    """
    app.add_exception_handler(HTTPException, partial(_of_http, routes=routes))
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(ImgsearchError, partial(_of_imgsearch, look_again=look_again))
    app.add_exception_handler(Exception, _of_a_bug)


def _of_http(request: Request, error: Any, *, routes: Sequence[BaseRoute]) -> Response:
    path = request.url.path
    if error.status_code == 404 and path.startswith("/api/") and path.endswith("/"):
        # A relative redirect, as a reverse proxy may have put the server below a path.
        return RedirectResponse(f"../{path.rstrip('/').rpartition('/')[2]}", 308)
    headers = dict(error.headers or {})
    if "Allow" in headers:  # which names only the methods of the first route at this path
        allowed = set(headers["Allow"].split(", "))
        for route in routes:
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
                allowed |= route.methods or set()
        headers["Allow"] = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
    return problem(error.status_code, str(error.detail), headers)


def _of_validation(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    name = first["loc"][-1]
    return problem(422, f"{name}: {first['msg'].removeprefix('Value error, ')}")


def _of_imgsearch(_: Request, error: Any, *, look_again: Callable[[], bool]) -> Response:
    if isinstance(error, NoCollectionError) and look_again():
        return problem(
            503,
            "the collection was replaced, or its network was changed; try again in a moment",
            {"Retry-After": "1"},
        )
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    return problem(status, _plain(str(error)))


def _of_a_bug(_: Request, error: Exception) -> Response:
    return problem(500, f"the server failed: {type(error).__name__}; see its log")


def _plain(text: str) -> str:
    """Replace the characters that JSON cannot carry, as file names need not be UTF-8."""
    return text.encode("utf-8", "replace").decode()
