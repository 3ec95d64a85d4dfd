"""Cancel the answering of a request once its client has disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException

__all__ = ["while_there"]

T = TypeVar("T")


async def while_there(request: Request, answering: Coroutine[Any, Any, T]) -> T:
    """Await an answer, and cancel it if the client disconnects.

    The request's body must have been read before.

    Raises:
        HTTPException: 400 if the client disconnected; 503 if the server is shutting down.
    """
    answer = asyncio.ensure_future(answering)
    leaving = asyncio.ensure_future(_leaving(request))
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HTTPException(400, "the client disconnected before it was answered")
        return answer.result()
    except asyncio.CancelledError as error:
        raise HTTPException(503, "the server is shutting down", {"Retry-After": "5"}) from error
    finally:
        for task in (answer, leaving):
            task.cancel()
            task.add_done_callback(_heed)


def _heed(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task that nobody awaits any more, or asyncio complains."""
    if not task.cancelled():
        task.exception()


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
