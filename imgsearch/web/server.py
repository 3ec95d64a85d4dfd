"""Listen, and answer requests until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from imgsearch.collection import Collection
from imgsearch.errors import ImgsearchError, StorageError, reason_of
from imgsearch.images.limits import MAX_PIXELS, pillow_allows
from imgsearch.storage.layout import Location
from imgsearch.web.app import create_app
from imgsearch.web.connections import ConnectionLimits, protocol
from imgsearch.web.hosts import address_of
from imgsearch.web.options import ServerOptions
from imgsearch.web.service import Service

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp

__all__ = ["listen", "make_server", "serve"]

CONNECTIONS = 256
BACKLOG = 128  # connections waiting to be accepted
HEADER_SECONDS = 10.0  # for the head of a request to arrive
GRACE = 2  # seconds for requests in progress at shutdown
LAST = 4.0  # seconds after which the process exits in any case

# Messages that uvicorn logs as errors although the server is not at fault.
_EXPECTED = ("ASGI callable returned without completing response", "Cancel %s running task")


def serve(
    location: Location,
    options: ServerOptions,
    *,
    device: str = "auto",
    trust_model: bool = False,
    ready: Callable[[str], None],
) -> None:
    """Serve a collection until Ctrl-C.

    If another one takes its place, or its network is changed, that is served from then on.

    Args:
        location: Location of the collection.
        options: Options of the server.
        device: See `imgsearch.Collection.open`.
        trust_model: See `imgsearch.Collection.open`.
        ready: Function that is called with the URL of the page once requests are accepted.

    Raises:
        StorageError: If it is impossible to listen at the host and port.
    """
    with (
        listen(options.host, options.port) as listening,
        pillow_allows(max(MAX_PIXELS, options.max_pixels)),
    ):
        options = replace(options, port=listening.getsockname()[1])
        opened = partial(
            Collection.open, location, device=device, threads=1, trust_model=trust_model
        )
        while _serve_one(opened, options, listening, ready):
            ready = _say_nothing


def _serve_one(
    opened: Callable[[], Collection],
    options: ServerOptions,
    listening: socket.socket,
    ready: Callable[[str], None],
) -> bool:
    """Serve a collection until Ctrl-C, or until another has taken its place.

    Returns:
        Whether there is another one to serve.
    """
    replaced = threading.Event()

    def look_again() -> bool:
        """Tell whether the collection can be opened anew, and if so, end this server."""
        if not replaced.is_set() and _is_there(opened):
            replaced.set()
            server.should_exit = True
        return replaced.is_set()

    with opened() as collection, closing(Service(collection, options)) as service:
        service.warm_up()
        server = make_server(create_app(service, options, look_again), ending=service.close)
        with suppress(KeyboardInterrupt):  # the intended way to stop the server
            ready(_address(options))
            server.run(sockets=[listening.dup()])  # uvicorn closes what it is given
            return replaced.is_set()
    return False


def _is_there(opened: Callable[[], Collection]) -> bool:
    try:
        opened().close()
    except ImgsearchError:
        return False
    return True


def _say_nothing(_: str) -> None:
    """Take the address of the page, which was told before."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that accepts connections at a host and a port.

    Raises:
        StorageError: If the port is in use, or listening there is not allowed.
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
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        reason = f"{reason_of(error)}; choose another --port, or 0 for any that is free"
        raise StorageError(f"cannot listen at {host}:{port}: {reason}") from error
    return listening


def make_server(
    app: ASGIApp, limits: ConnectionLimits | None = None, ending: Callable[[], None] | None = None
) -> uvicorn.Server:
    """Return a server for an application; call its `run` with a socket.

    Args:
        app: The application.
        limits: ConnectionLimits on the connections; None for the defaults.
        ending: Function that is called during shutdown to cut short requests that take long.
    """
    limits = limits or ConnectionLimits(connections=CONNECTIONS, head_seconds=HEADER_SECONDS)
    config = uvicorn.Config(
        app,
        http=protocol(limits),
        ws="none",
        lifespan="off",
        loop="auto",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_worth_saying)
    return _Server(config, ending)


class _Server(uvicorn.Server):
    """A server that ends when told to, whatever requests are in progress."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._ending is not None:
            asyncio.get_running_loop().call_later(GRACE / 2, self._ending)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            last = threading.Timer(LAST, os._exit, [0 if sig == signal.SIGINT else 128 + sig])
            last.daemon = True  # the timer must not delay an exit that succeeds by itself
            last.start()
        super().handle_exit(sig, frame)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Tell whether a log record is about a fault, and not about a client that was cut off."""
    cut_off = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not (cut_off or str(record.msg).startswith(_EXPECTED))


def _address(options: ServerOptions) -> str:
    address = address_of(options.host)
    host = options.host
    if address is not None and address.is_unspecified:
        host = "localhost"
    elif address is not None and address.version == 6:
        host = f"[{host}]"
    return f"http://{host}:{options.port}/"
