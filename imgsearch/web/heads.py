"""Answer HEAD wherever GET is answered, with the same headers."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Heads", "is_head"]

_KEY = "imgsearch.head"


class Heads:
    """An ASGI middleware around an application that need not support HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, turning HEAD into GET without the body."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
            elif not message.get("more_body"):
                await send({"type": "http.response.body"})

        # Ranges are defined for GET only (RFC 9110, 14.2).
        headers = [each for each in scope["headers"] if each[0] != b"range"]
        asked = {**scope, "method": "GET", "headers": headers, _KEY: True}
        await self._app(asked, receive, send_head)


def is_head(scope: Scope) -> bool:
    """Tell whether a request asks only for the headers of the response."""
    return _KEY in scope
