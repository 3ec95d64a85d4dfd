"""Share the server's connections fairly among clients, and close those that are wasted.

docs/decisions/0013-connections.md says why this is done here.
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

__all__ = ["Limits", "Standing", "connection_of", "protocol"]

MOST_HEAD = 65_536  # bytes of the head of a request
LEAST_READ = 16_384  # bytes of an answer that a client has to read in `write_seconds`
STALLED = 1.0  # seconds without reading anything after which a place may be given away
_KEY = "imgsearch.connection"
_EMPTY_LINE = b"\r\n\r\n"
_CHUNKED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What connections are allowed.

    Attributes:
        connections: Connections that are open at the same time.
        head_seconds: Seconds that the head of a request may take to arrive.
        write_seconds: Seconds that a client may take to read 16 KB of an answer.
    """

    connections: int = 256
    head_seconds: float = 10.0
    write_seconds: float = 20.0


@dataclass(slots=True)
class Standing:
    """What is known of the client of a connection.

    Attributes:
        known: Whether it has shown the token; None if it was not asked for it.
        malformed: What is wrong with its present request; empty if nothing is.
    """

    known: bool | None = None
    malformed: str = ""


def connection_of(scope: Scope) -> Standing:
    """Return what is known of the client that sends a request."""
    standing: Standing = scope.setdefault(_KEY, Standing())
    return standing


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return the protocol of the connections of one server, for `uvicorn.Config(http=…)`."""
    return type("Placed", (_Connection,), {"places": _Places(limits)})


class _Places:
    """The connections of one server: no more than a limit, and none for ever.

    When there is no place left for another one, the oldest connection without a request under way
    is closed: first those of who has not asked anything, of the address that has the most. An
    eighth of the places is for who has shown the token, and a quarter is out of reach of any
    single address.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[_Connection, None] = {}  # the oldest first
        self._peers: Counter[str] = Counter()
        self._looking: asyncio.TimerHandle | None = None

    def enter(self, new: _Connection) -> None:
        """Take a connection in, and make room for it; hang up if there is none to be made."""
        self._open[new] = None
        self._peers[new.peer] += 1
        if self._looking is None:
            self._look_later(new.loop)
        crowd = self._crowd(new)
        if crowd is None:
            return
        most = self.limits.connections
        rivals = [(rank, other) for other in crowd if (rank := other.rank()) is not None]
        if not rivals and len(self._open) <= most + most // 4:
            return  # all of them are being answered: one will be idle soon
        # `min` takes the first, and so the oldest, of equals.
        _, last = min(
            rivals, key=lambda each: (each[0], -self._peers[each[1].peer]), default=(0, new)
        )
        last.transport.abort()
        self.leave(last)

    def leave(self, old: _Connection) -> None:
        """Give the place of a connection away."""
        if old in self._open:
            del self._open[old]
            self._peers -= Counter([old.peer])

    def _crowd(self, new: _Connection) -> list[_Connection] | None:
        """Return the connections of which one has to go for a new one, None if there is room."""
        most = self.limits.connections
        others = [other for other in self._open if other is not new]
        if self._peers[new.peer] > most - most // 4:
            return [other for other in others if other.peer == new.peer]
        strangers = [other for other in others if not other.standing.known]
        if len(strangers) >= most - most // 8:
            return strangers
        return others if len(others) >= most else None

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = min(1.0, self.limits.head_seconds / 4, self.limits.write_seconds / 4)
        self._looking = loop.call_later(pause, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hang up on connections that have taken too long."""
        self._looking = None
        for connection in list(self._open):
            connection.look()
        if self._open:
            self._look_later(loop)


class _Flow(FlowControl):
    """Flow control that does not read on while requests wait for their turn."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class _Connection(HttpToolsProtocol):
    """A connection whose requests are parsed one after the other.

    The next request is not looked at until the one before is answered: of a pipeline, no more than
    was read at once is ever held.
    """

    places: ClassVar[_Places]
    flow: _Flow

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.peer = peer_of(self.client)
        self.standing = Standing()
        self._held = b""  # what was read beyond the present request
        self._deaf = False  # nothing more is read
        self._head = 0  # bytes, of a head that is not there in full
        self._tail = b""  # the last three of them
        self._body: int | None = None  # bytes that are still to come; None while reading a head
        self._asked = False  # something, ever
        self._since = self.loop.time()  # when it began to wait for a request
        self._stuck: tuple[float, int] | None = None  # since when so many bytes are not read
        self.places.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.places.leave(self)
        self._held = b""
        super().connection_lost(exc)

    # Its place

    def rank(self) -> int | None:
        """Return how soon its place may be given away, lower is sooner; None if never."""
        stalled = self._stuck is not None and self.loop.time() - self._stuck[0] > STALLED
        if stalled or self._held:  # or asks without waiting for answers, as no browser does
            return 3
        if self._is_answering() or self._body is not None:
            return 2 if self.standing.known is False else None
        if self.standing.known:
            return 4
        return 1 if self._asked else 0

    def look(self) -> None:
        """Hang up if the client takes too long to ask, or to read what it was answered."""
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

    # Its requests

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._held += data
        elif not self._deaf:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Parse what was read up to the end of a request; keep the rest until it is answered."""
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
        """Return up to where data is of one request only."""
        if self._body == _CHUNKED:  # its end is known to the parser alone: see `on_message_begin`
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
        if self._body is not None:  # it was refused while it is still being sent
            self.transport.close()
        elif held and self.parser is not None:
            self._feed(held)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it is uvicorn's
        if self._head <= MOST_HEAD:
            self._refuse(400, "the request is not valid HTTP/1.1")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer what cannot be parsed, and hang up once the client has had time to read that."""
        self._deaf = True
        if self._is_answering():
            if self._body is None:  # the request before is sound, and is being answered
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
        # Closed at once, it would be reset, as the client is still sending: see `lingering`.
        self.loop.call_later(LINGER, self.transport.close)
