"""Let nobody in who is not meant to be: other hosts, other sites, those without the token."""

from __future__ import annotations

import hashlib
import hmac
import html
import socket
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.web.options import ServerOptions, address_of, is_loopback
from imgsearch.web.problems import problem

__all__ = ["Guard"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOGIN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>imgsearch</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"></head>
<body><main><h1>imgsearch</h1><p>{}</p>
<form action="/" method="get" autocomplete="off">
<label>Token <input type="password" name="token" required autofocus></label>
<button>Open</button></form></main></body></html>
"""
YEAR = 365 * 24 * 3600  # seconds that a browser remembers the token


class Guard:
    """An ASGI application around another: refuses what it must not see, sets safe headers."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app = app
        self._host = options.host.lower()
        wildcard = address_of(self._host)
        self._anywhere = wildcard is not None and wildcard.is_unspecified
        self._name = socket.gethostname().lower()
        self._token = options.token.encode() if options.token else None
        self._cookie = f"imgsearch-{options.port}"  # browsers share cookies between ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refuse(scope) or self._ask_for_token(scope)
        await (answer or self._app)(scope, receive, send_safely)

    def _refuse(self, scope: Scope) -> Response | None:
        """Return a refusal if a request does not come from a page or a program of this server."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return problem(421, "the Host header names another server than this; see --host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != hosts[0].lower():
            return problem(403, "pages of other sites may not ask this server")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not _is_link(scope, headers):
            return problem(403, "pages of other sites may not ask this server")
        return None

    def _is_ours(self, host: str) -> bool:
        """Tell whether a Host header names this server: another name may be one that was rebound.

        The port may be another, where it is forwarded.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if is_loopback(name) or name == self._host:
            return True
        literal = address_of(name) is not None  # which cannot be rebound
        return self._anywhere and (literal or name in (self._name, f"{self._name}.local"))

    def _ask_for_token(self, scope: Scope) -> Response | None:
        """Return what is to be answered to who has no token."""
        if self._token is None:
            return None
        headers = Headers(scope=scope)
        is_page = scope["path"] == "/" and scope["method"] == "GET"
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token") if is_page else None
        if given:
            return self._log_in(given[0])
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _equal(token.strip(), self._token):
            return None
        if _equal(_cookies(headers).get(self._cookie, ""), self._proof()):
            return None
        if is_page:
            return HTMLResponse(LOGIN.format("A token is needed to see this collection."), 401)
        return problem(
            401,
            "a token is needed: send it as Authorization: Bearer",
            {"WWW-Authenticate": "Bearer"},
        )

    def _log_in(self, token: str) -> Response:
        if self._token is None or not _equal(token, self._token):
            return HTMLResponse(LOGIN.format(html.escape("That is not the token.")), 401)
        response = RedirectResponse("/", 303)  # so that the token is in no history
        response.set_cookie(
            self._cookie,
            self._proof().decode(),
            max_age=YEAR,
            httponly=True,
            samesite="strict",
        )
        return response

    def _proof(self) -> bytes:
        """Return what a browser is given to show that it knew the token."""
        return hmac.new(self._token or b"", b"imgsearch", hashlib.sha256).hexdigest().encode()


def _is_link(scope: MutableMapping[str, Any], headers: Headers) -> bool:
    """Tell whether somebody follows a link to the page itself, which gives nothing away."""
    return (
        scope["path"] == "/"
        and scope["method"] == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in cookies.items()}


def _equal(given: str, expected: bytes) -> bool:
    """Compare in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected)
