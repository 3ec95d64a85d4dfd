"""Serve a collection in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from imgsearch.collection import Collection
from imgsearch.web.app import create_app
from imgsearch.web.connections import ConnectionLimits
from imgsearch.web.options import ServerOptions
from imgsearch.web.server import listen, make_server
from imgsearch.web.service import Service

__all__ = ["listening"]


@contextmanager
def listening(
    directory: Path, options: ServerOptions, limits: ConnectionLimits | None = None
) -> Iterator[int]:
    """Serve at any port that is free, and yield its number."""
    with (
        Collection.open(directory, device="cpu", threads=1) as collection,
        listen(options.host, 0) as socket,
    ):
        port: int = socket.getsockname()[1]
        options = replace(options, port=port)
        with closing(Service(collection, options)) as service:
            server = make_server(create_app(service, options), limits)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
            thread.start()
            try:
                yield port
            finally:
                server.should_exit = True
                thread.join(20)
