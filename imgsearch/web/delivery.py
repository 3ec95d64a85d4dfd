"""Deliver a file or a range of it, with the HTTP headers that let clients cache it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from imgsearch.web.heads import is_head
from imgsearch.web.originals import Original
from imgsearch.web.problems import LostFileError

__all__ = ["REVALIDATE", "Delivery", "deliver", "is_known"]

REVALIDATE = "private, no-cache"  # by the ETag: another collection may be served here tomorrow

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")


class Delivery(StreamingResponse):
    """A response that sends files of images, and breaks off if one changes meanwhile."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        status: int,
        headers: Mapping[str, str],
        media_type: str,
        *,
        close: Callable[[], None],
    ) -> None:
        super().__init__(chunks, status, headers, media_type)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the files, and call `close`."""
        try:
            await super().__call__(scope, receive, send)
        except LostFileError:
            return  # without completing the response, so that the server closes the connection
        finally:
            self._close()


def deliver(request: Request, original: Original, headers: Mapping[str, str]) -> Response:
    """Return the response to a request for a file, which is closed once it is sent.

    Args:
        request: The request, which may ask for a range of bytes (RFC 9110, 14) or headers only.
        original: The file.
        headers: The headers to send with the file, including an ETag.

    Raises:
        HTTPException: 416 if the file has no such range.
    """
    try:
        part = _part(request, original.size, headers["ETag"])
    except HTTPException:
        original.close()
        raise
    length = original.size if part is None else len(part)
    fields = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(length)}
    if is_head(request.scope):
        original.close()
        return Response(headers=fields, media_type=original.media_type)
    if part is None:
        return _delivery(original, None, 200, fields)
    fields["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{original.size}"
    return _delivery(original, part, 206, fields)


def _delivery(
    original: Original, part: range | None, status: int, headers: Mapping[str, str]
) -> Delivery:
    kind = original.media_type
    return Delivery(original.chunks(part), status, headers, kind, close=original.close)


def is_known(request: Request, etag: str) -> bool:
    """Tell whether the client already has the version with this ETag (RFC 9110, 13.1.2)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return any(each.strip().removeprefix("W/") in (etag, "*") for each in given.split(","))


def _part(request: Request, size: int, etag: str) -> range | None:
    """Return the requested range of bytes; None for the whole file.

    Multiple and malformed ranges get the whole file, as the RFC allows.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if not found or request.headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise HTTPException(
            416,
            f"the file has {size:,} bytes, and none in that range",
            {"Content-Range": f"bytes */{size}"},
        )
    return range(start, stop)
