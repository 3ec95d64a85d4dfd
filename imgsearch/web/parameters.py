"""The parameters that several routes take, and what any route may answer."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Path, Query, Request
from pydantic import BeforeValidator
from starlette.exceptions import HTTPException

from imgsearch.errors import SettingError
from imgsearch.web.asking import MAX_ID
from imgsearch.web.problems import PROBLEMS
from imgsearch.web.service import Service

__all__ = ["IDS", "PREFIX", "After", "Id", "Number", "chosen", "once", "refusals", "service_of"]

PREFIX = "/api/v1"
IDS = r"^[1-9][0-9]{0,18}(,[1-9][0-9]{0,18}){0,999}$"

_NUMBER = re.compile(r"0|-?[1-9][0-9]*")


def _digits(given: Any) -> Any:
    """Refuse what only Python takes for a number: `+1`, `1_0`, ` 1`, `０`."""
    if isinstance(given, str) and not _NUMBER.fullmatch(given):
        raise ValueError("give a whole number in digits, without leading zeros")
    return given


Number = Annotated[int, BeforeValidator(_digits)]
Id = Annotated[Number, Path(ge=1, le=MAX_ID)]
After = Annotated[Number, Query(ge=0, le=MAX_ID)]


async def once(request: Request) -> None:  # async, or FastAPI runs it in another thread
    """Refuse a parameter that is given more than once, as it is ambiguous."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise HTTPException(400, f"{name[:40]!r} is given more than once")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe statuses by which a route refuses a request."""
    return {status: {"description": PROBLEMS[status]} for status in statuses}


def chosen(request: Request, ids: str, *beside: str) -> list[int]:
    """Return the ids in a parameter that stands alone, or beside some other parameters.

    Raises:
        SettingError: If there is any other parameter, or an id is too large.
    """
    if not set(request.query_params) <= {"ids", *beside}:
        raise SettingError("ids takes no other parameter beside it")
    numbers = [int(text) for text in ids.split(",")]
    if max(numbers) > MAX_ID:
        raise SettingError(f"ids are at most {MAX_ID:,}")
    return numbers


def service_of(request: Request) -> Service:
    """Return the service of the application."""
    service: Service = request.app.state.service
    return service
