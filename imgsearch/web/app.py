"""The application: the page, the API, and what guards them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import TypeAdapter
from starlette.types import ASGIApp

from imgsearch.web.guard import Guard
from imgsearch.web.lingering import Lingering
from imgsearch.web.options import ServerOptions
from imgsearch.web.problems import MEDIA_TYPE, PROBLEMS, handle_errors
from imgsearch.web.routes import api
from imgsearch.web.schemas import Problem
from imgsearch.web.service import Service
from imgsearch.web.uploads import Uploads

__all__ = ["create_app", "openapi"]

STATIC = Path(__file__).parent / "static"


class _Static(StaticFiles):
    """The page's files, asked for again each time, as another version may be served tomorrow."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(service: Service, options: ServerOptions) -> ASGIApp:
    """Return the application that serves a collection."""
    app = FastAPI(
        title="imgsearch", version=version("imgsearch-faiss"), docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.state.uploads = Uploads(options)
    handle_errors(app)
    app.include_router(api)
    app.add_api_route("/", _page, include_in_schema=False, response_class=Response)
    app.mount("/static", _Static(directory=STATIC, check_dir=False))
    described = openapi(app, token=options.token is not None)
    app.openapi = lambda: described  # type: ignore[method-assign]  # as FastAPI's manual has it
    return Lingering(Guard(app, options))


async def _page() -> Response:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


def openapi(app: FastAPI, *, token: bool) -> dict[str, Any]:
    """Return the OpenAPI document, with the answers that every route may give."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = document["components"]["schemas"]
    schemas["Problem"] = TypeAdapter(Problem).json_schema()
    body = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    everywhere = (403, 421, 500, *([401] if token else []))
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
