"""Listen, and answer until Ctrl-C."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imgsearch.embedding.limits import MAX_PIXELS, pillow_allows
from imgsearch.errors import StorageError, reason_of
from imgsearch.places import Location, opened
from imgsearch.web.app import create_app
from imgsearch.web.options import ServerOptions, address_of
from imgsearch.web.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["listen", "make_server", "serve"]

CONNECTIONS = 256
HEADER_SECONDS = 10.0  # that the head of a request may take
MOST_HEAD = 65_536  # bytes of it
GRACE = 2  # seconds that requests under way are given at the end


def serve(
    location: Location,
    options: ServerOptions,
    *,
    device: str = "auto",
    ready: Callable[[str], None],
) -> None:
    """Serve a collection until Ctrl-C.

    Args:
        location: of the collection.
        options: how to serve it.
        device: see `imgsearch.places.opened`.
        ready: called with the address of the page once requests are accepted.

    Raises:
        StorageError: nobody can listen at that host and port.
    """
    with (
        opened(location, device=device, threads=1) as collection,
        listen(options.host, options.port) as listening,
        pillow_allows(max(MAX_PIXELS, options.max_pixels)),
    ):
        options = replace(options, port=listening.getsockname()[1])
        with closing(Service(collection, options)) as service:
            service.warm_up()
            server = make_server(create_app(service, options))
            ready(_address(options))
            with suppress(KeyboardInterrupt):  # which is how it is meant to end
                server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that accepts connections at a host and a port.

    Raises:
        StorageError: another process does, or it may not be.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StorageError(f"cannot listen at {host}: {reason_of(error)}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = f"{reason_of(error)}; choose another --port, or 0 for any that is free"
        raise StorageError(f"cannot listen at {host}:{port}: {reason}") from error
    return listening


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return the server of an application; `run` it with a socket."""
    config = uvicorn.Config(
        app,
        http=_Patient,
        ws="none",
        lifespan="off",
        loop="auto",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(config)


class _Patient(HttpToolsProtocol):
    """A connection that is closed if the head of a request is too long, or takes too long."""

    _impatience: asyncio.TimerHandle | None = None
    _head = 0  # bytes, of a head that is not there in full

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._impatience is not None:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self.transport.close()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._impatience = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        self._head = 0
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None


def _address(options: ServerOptions) -> str:
    address = address_of(options.host)
    host = options.host
    if address is not None and address.is_unspecified:
        host = "localhost"
    elif address is not None and address.version == 6:
        host = f"[{host}]"
    return f"http://{host}:{options.port}/"
