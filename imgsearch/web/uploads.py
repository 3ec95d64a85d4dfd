"""Read forms as they arrive, within limits on their size, duration and number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from imgsearch.errors import PicklableError
from imgsearch.web.options import ServerOptions

__all__ = ["Uploads"]

MAX_FIELDS = 1000
MAX_FIELD = 4096  # bytes of a field that is not a file


class _RefusedError(PicklableError, MultiPartException):
    """A refusal that stops the parser, which then closes its files."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Uploads:
    """The reader of one server's forms; files of more than a megabyte are spooled to disk."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._count = 0

    @asynccontextmanager
    async def form_of(self, request: Request) -> AsyncIterator[FormData]:
        """Read a multipart form, whose file stays open until the context exits.

        Raises:
            HTTPException: 400 if the form is malformed, 408 if it arrives too slowly, 413 if it
                is too large, 415 if it is not a multipart form, 503 if there are too many at
                once.
        """
        kind, parameters = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
            raise HTTPException(415, "send the fields as multipart/form-data")
        if self._count >= self._options.max_uploads:
            busy = "too many requests are being processed; try again in a moment"
            raise HTTPException(503, busy, {"Retry-After": "1"})
        self._count += 1
        try:
            form = await self._parse(request)
            try:
                yield form
            finally:
                await form.close()
        finally:
            self._count -= 1

    async def _parse(self, request: Request) -> FormData:
        async with aclosing(self._chunks(request)) as chunks:
            parser = MultiPartParser(
                request.headers,
                chunks,
                max_files=1,
                max_fields=MAX_FIELDS,
                max_part_size=MAX_FIELD,
            )
            try:
                return await parser.parse()
            except _RefusedError as error:
                raise HTTPException(error.status, error.message) from error
            except MultiPartException as error:
                raise HTTPException(400, error.message) from error
            except (FormParserError, ValueError) as error:
                raise HTTPException(400, "the body is not multipart/form-data") from error

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield a request's body as long as it stays within the limits."""
        limit, clock = self._options.max_upload, asyncio.get_running_loop().time
        too_large = _RefusedError(
            413, f"the request has more than {limit:,} bytes: see --max-upload"
        )
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_large
        size, end = 0, clock() + self._options.upload_seconds
        async with aclosing(request.stream()) as stream:
            while True:
                try:
                    async with asyncio.timeout(min(self._options.idle_seconds, end - clock())):
                        chunk = await anext(stream)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise _RefusedError(408, "the request took too long to arrive") from error
                except ClientDisconnect as error:
                    raise _RefusedError(400, "the request was cut off") from error
                size += len(chunk)
                if size > limit:
                    raise too_large
                yield chunk
