"""The application: the page, the API, and the layers that guard them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import TypeAdapter
from starlette.types import ASGIApp

from imgsearch.web.delivery import is_known
from imgsearch.web.filling_routes import filling
from imgsearch.web.guard import Guard
from imgsearch.web.heads import Heads
from imgsearch.web.lingering import Lingering
from imgsearch.web.map_routes import maps
from imgsearch.web.options import ServerOptions
from imgsearch.web.problems import MEDIA_TYPE, PROBLEMS, handle_errors
from imgsearch.web.review_routes import review
from imgsearch.web.routes import api
from imgsearch.web.schemas import Problem
from imgsearch.web.service import Service
from imgsearch.web.uploads import Uploads

__all__ = ["create_app", "openapi"]

STATIC = Path(__file__).parent / "static"


class _Static(StaticFiles):
    """The page's static files, revalidated each time, as another version may be served later."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(
    service: Service, options: ServerOptions, look_again: Callable[[], bool] = lambda: False
) -> ASGIApp:
    """Return the application that serves a collection.

    Args:
        service: The work behind the routes.
        options: Options of the server.
        look_again: Function that is called when the collection is no longer the one that was
            opened, and tells whether the new one will be served in a moment.
    """
    app = FastAPI(
        title="imgsearch",
        version=version("imgsearch-faiss"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # FastAPI redirects to absolute URLs: wrong behind a reverse proxy
    )
    app.state.service = service
    app.state.uploads = Uploads(options)
    routers = (api, maps, review, filling)
    handle_errors(app, [route for router in routers for route in router.routes], look_again)
    for router in routers:
        app.include_router(router)
    app.add_api_route("/", _page_of(options), include_in_schema=False, response_class=Response)
    app.mount("/static", _Static(directory=STATIC, check_dir=False))
    described = cache(partial(openapi, app, token=options.token is not None))
    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's manual has it
    return Heads(Lingering(Guard(app, options)))


def _page_of(options: ServerOptions) -> Callable[[Request], Awaitable[Response]]:
    """Return the route of the page, which has a logout button if the server has a token."""
    content = (STATIC / "index.html").read_bytes()
    if options.token is not None:
        content = content.replace(b'id="logout" hidden', b'id="logout"')
    headers = {"Cache-Control": "no-cache", "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}

    async def page(request: Request) -> Response:
        if is_known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return HTMLResponse(content, headers=headers)

    return page


def openapi(app: FastAPI, *, token: bool) -> dict[str, Any]:
    """Return the OpenAPI document, including the responses that any route may give."""
    # Relative to the document's URL, as a reverse proxy may have put the server below a path.
    document = get_openapi(
        title=app.title, version=app.version, routes=app.routes, servers=[{"url": "."}]
    )
    schemas = document["components"]["schemas"]
    schemas["Problem"] = TypeAdapter(Problem).json_schema()
    body = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    everywhere = (400, 403, 421, 500, *([401, 429] if token else []))
    for operations in document["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            answers.update({str(each): {"description": PROBLEMS[each]} for each in everywhere})
            for status, answer in answers.items():
                if int(status) >= 400:
                    answer["content"] = body
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document
