"""Share the server's connections fairly among clients, and close those that are wasted.

docs/decisions/0013-connections.md explains why this is done here.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from imgsearch.web.hosts import peer_of
from imgsearch.web.lingering import LINGER

__all__ = ["ConnectionLimits", "Standing", "connection_of", "protocol"]

MOST_HEAD = 65_536  # bytes in the head of a request
LEAST_READ = 16_384  # bytes of a response that a client has to read in `write_seconds`
STALLED = 1.0  # seconds without reading anything after which a client may lose its place
_KNOWN = 4  # rank of an idle connection whose client has shown the token
_KEY = "imgsearch.connection"
_EMPTY_LINE = b"\r\n\r\n"
_CHUNKED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits on the connections of a server.

    Attributes:
        connections: Maximum number of connections open at the same time.
        head_seconds: Maximum seconds for the head of a request to arrive.
        write_seconds: Maximum seconds for a client to read 16 KB of a response.
    """

    connections: int = 256
    head_seconds: float = 10.0
    write_seconds: float = 20.0


@dataclass(slots=True)
class Standing:
    """The facts known about the client of a connection.

    Attributes:
        known: Whether the client has shown the token; None if it was not asked for one.
        malformed: The fault in the client's current request; empty if there is none.
    """

    known: bool | None = None
    malformed: str = ""


def connection_of(scope: Scope) -> Standing:
    """Return the facts known about the client that sent a request."""
    standing: Standing = scope.setdefault(_KEY, Standing())
    return standing


def protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Return the protocol class for the connections of one server: `uvicorn.Config(http=…)`."""
    return type("Placed", (_Connection,), {"places": _Places(limits)})


class _Places:
    """The open connections of one server, limited in number and in time.

    When no place is left for a new connection, the oldest one without a request in progress is
    closed. Clients that have not sent a request yet go first, and among equals those of the
    address with the most connections. An eighth of the places is reserved for clients that have
    shown the token, and no single address can take more than three quarters.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: dict[_Connection, None] = {}  # oldest first
        self._peers: Counter[str] = Counter()
        self._looking: asyncio.TimerHandle | None = None

    def enter(self, new: _Connection) -> None:
        """Add a connection and make room for it; close it if no room can be made."""
        self._open[new] = None
        self._peers[new.peer] += 1
        if self._looking is None:
            self._look_later(new.loop)
        crowd = self._crowd(new)
        if crowd is None:
            return
        most = self.limits.connections
        rivals = [(rank, other) for other in crowd if (rank := other.rank()) is not None]
        if not all(other.standing.known for other in crowd):
            # Not even while all the others are being answered does a client that has shown the
            # token make way for one that has not.
            rivals = [(rank, other) for rank, other in rivals if rank != _KNOWN]
        if not rivals and len(self._open) <= most + most // 4:
            return  # all others are being answered: one will be idle soon
        # Among equals, `min` takes the first, which is the oldest.
        _, last = min(
            rivals, key=lambda each: (each[0], -self._peers[each[1].peer]), default=(0, new)
        )
        last.transport.abort()
        self.leave(last)

    def leave(self, old: _Connection) -> None:
        """Free the place of a connection."""
        if old in self._open:
            del self._open[old]
            self._peers -= Counter([old.peer])

    def _crowd(self, new: _Connection) -> list[_Connection] | None:
        """Return the connections one of which must make way for `new`; None if there is room."""
        most = self.limits.connections
        others = [other for other in self._open if other is not new]
        if self._peers[new.peer] > most - most // 4:
            return [other for other in others if other.peer == new.peer]
        unknown = [other for other in others if not other.standing.known]
        if len(unknown) >= most - most // 8:
            return unknown
        return others if len(others) >= most else None

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = min(1.0, self.limits.head_seconds / 4, self.limits.write_seconds / 4)
        self._looking = loop.call_later(pause, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close connections that have taken too long."""
        self._looking = None
        for connection in list(self._open):
            connection.look()
        if self._open:
            self._look_later(loop)


class _Flow(FlowControl):
    """Flow control that stops reading while requests wait for their turn."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class _Connection(HttpToolsProtocol):
    """A connection whose requests are parsed one after the other.

    A request is not parsed until the previous one has been answered, so no more of a pipeline is
    ever held in memory than arrived in one read.
    """

    places: ClassVar[_Places]
    flow: _Flow

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.peer = peer_of(self.client)
        self.standing = Standing()
        self._held = b""  # bytes read beyond the current request
        self._deaf = False  # whether further input is ignored
        self._head = 0  # bytes received of an incomplete head
        self._tail = b""  # the last three of these bytes
        self._body: int | None = None  # bytes of the body still to come; None while reading a head
        self._asked = False  # whether the client ever sent a request
        self._since = self.loop.time()  # when the connection began to wait for a request
        self._stuck: tuple[float, int] | None = None  # since when this many bytes are unread
        self.places.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.places.leave(self)
        self._held = b""
        super().connection_lost(exc)

    # The connection's place

    def rank(self) -> int | None:
        """Return how soon the connection may lose its place, lower is sooner; None if never."""
        stalled = self._stuck is not None and self.loop.time() - self._stuck[0] > STALLED
        if stalled or self._held:  # held: it pipelines requests, which no browser does
            return 3
        if self._is_answering() or self._body is not None:
            return 2 if self.standing.known is False else None
        if self.standing.known:
            return _KNOWN
        return 1 if self._asked else 0

    def look(self) -> None:
        """Close the connection if the client is too slow to send a request or read a response."""
        now, limits = self.loop.time(), self.places.limits
        unread = self.transport.get_write_buffer_size()
        if not unread:
            self._stuck = None
        elif self._stuck is None or unread <= self._stuck[1] - LEAST_READ:
            self._stuck = now, unread
        elif now - self._stuck[0] > limits.write_seconds:
            self.transport.abort()
            return
        else:
            self._stuck = self._stuck[0], max(self._stuck[1], unread)
        waits = not self._is_answering() and self._body is None
        if waits and now - self._since > limits.head_seconds:
            self.transport.close()

    def resume_writing(self) -> None:
        self._stuck = None
        super().resume_writing()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    # The connection's requests

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._held += data
        elif not self._deaf:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Parse data up to the end of a request, and hold the rest until that is answered."""
        at = 0
        while at < len(data) and not (self._deaf or self.transport.is_closing()):
            if self._body is None and self._is_answering():
                self._held = data[at:]
                self.flow.pause_reading()
                self.flow.held = True
                return
            end = self._end_of_part(data, at)
            super().data_received(data[at:end])
            at = end
        if self._head > MOST_HEAD and not self._deaf:
            self._refuse(431, f"the head of the request has more than {MOST_HEAD:,} bytes")

    def _end_of_part(self, data: bytes, at: int) -> int:
        """Return the position up to which data surely belongs to a single request."""
        if self._body == _CHUNKED:  # only the parser knows its end: see `on_message_begin`
            return len(data)
        if self._body is not None:
            end = min(len(data), at + self._body)
            self._body -= end - at
            return end
        seam = (self._tail + data[at : at + 3]).find(_EMPTY_LINE)
        if seam >= 0:
            end = at + seam + len(_EMPTY_LINE) - len(self._tail)
        else:
            found = data.find(_EMPTY_LINE, at)
            end = found + len(_EMPTY_LINE) if found >= 0 else len(data)
        self._tail = (self._tail + data[max(at, end - 3) : end])[-3:]
        self._head += end - at
        return end

    def on_message_begin(self) -> None:
        if self._is_answering():
            raise ValueError("a request follows one with a chunked body")
        super().on_message_begin()
        self.standing.malformed = ""
        self.scope[_KEY] = self.standing  # type: ignore[literal-required]  # for Guard

    def on_headers_complete(self) -> None:
        if self._head > MOST_HEAD:
            raise ValueError("the head is too long, and `_feed` says so")
        self._head = 0
        if not self.url.startswith(b"/"):
            self.standing.malformed = "the request is not for a path of this server"
        super().on_headers_complete()
        fields = dict(self.headers)
        chunked = b"transfer-encoding" in fields
        self._body = _CHUNKED if chunked else int(fields.get(b"content-length", 0))
        if chunked or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._body = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._asked = True
        self._since = self.loop.time()
        held, self._held = self._held, b""
        self.flow.held = False
        super().on_response_complete()
        if self._body is not None:  # the request was refused before all of it arrived
            self.transport.close()
        elif held and self.parser is not None:
            self._feed(held)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        if self._head <= MOST_HEAD:
            self._refuse(400, "the request is not valid HTTP/1.1")

    def _refuse(self, status: int, detail: str) -> None:
        """Refuse input that cannot be parsed, and close once the client had time to read why."""
        self._deaf = True
        if self._is_answering():
            if self._body is None:  # the previous request is valid, and is being answered
                self.cycle.keep_alive = False
                return
            if self.cycle.response_started:
                self.transport.close()
                return
        title = HTTPStatus(status).phrase
        fields = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        body = json.dumps(fields).encode()
        head = [
            STATUS_LINE[status],
            b"content-type: application/problem+json\r\n",
            b"content-length: %d\r\n" % len(body),
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n",
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
        # Closing at once would reset the connection while the client is sending: see `lingering`.
        self.loop.call_later(LINGER, self.transport.close)
