"""Refuse requests for other hosts, from other sites and without the token."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.web.connections import connection_of
from imgsearch.web.guessing import Guesses, TooManyGuessesError
from imgsearch.web.hosts import MalformedError, Names, peer_of
from imgsearch.web.options import ServerOptions
from imgsearch.web.problems import problem
from imgsearch.web.sessions import Sessions

__all__ = ["Guard"]

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
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
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"></head>
<body><main><h1>imgsearch</h1><p>{}</p>
<form action="./" method="post" autocomplete="off">
<label>Token <input type="password" name="token" required autofocus></label>
<button>Open</button></form></main></body></html>
"""
# Otherwise browsers send "Origin: null" with the form.
LOGIN_HEADERS = {"Referrer-Policy": "same-origin"}
MOST_FORM = 4_096  # bytes of the login form
MOST_FIELDS = 100
FORM_SECONDS = 10.0  # for the form to arrive

#: Headers that may occur only once: of two, a proxy may have read the one that we do not.
ONCE = (
    "authorization",
    "content-length",
    "content-type",
    "host",
    "if-range",
    "origin",
    "range",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "transfer-encoding",
)
_LENGTH = re.compile(r"[0-9]{1,18}")


class Guard:
    """An ASGI middleware that refuses unwanted requests and sets security headers."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app = app
        self._names = Names(options.host, options.allowed_hosts)
        self._sessions = Sessions(options.token, options.port) if options.token else None
        self._guesses = Guesses(options.guesses, options.guess_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = _malformed(scope) or self._refuse(scope)
        if answer is None and self._sessions is not None:
            answer = await self._ask_for_token(scope, receive, self._sessions)
        await (answer or self._app)(scope, receive, send_safely)

    def _refuse(self, scope: Scope) -> Response | None:
        """Return a refusal if a request names another server or comes from another site's page."""
        headers = Headers(scope=scope)
        host = headers["host"]
        try:
            if not self._names.has(host):
                return problem(421, "the Host header names another server; see --allow-host")
        except MalformedError:
            return problem(400, "the Host header is malformed")
        origin = headers.get("origin")
        if origin is not None and not self._names.has_page(origin, host):
            return problem(403, "pages of other sites may not ask this server")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not _is_link(scope, headers):
            return problem(403, "pages of other sites may not ask this server")
        return None

    async def _ask_for_token(
        self, scope: Scope, receive: Receive, sessions: Sessions
    ) -> Response | None:
        """Return the response to a client that has not shown the token; None if it has."""
        headers = Headers(scope=scope)
        connection = connection_of(scope)
        connection.known = bool(connection.known)
        if scope["path"] == "/logout" and scope["method"] == "POST":
            connection.known = False
            return Response(status_code=204, headers={"Set-Cookie": sessions.end(headers)})
        is_page = scope["path"] == "/"
        given = await _token_in_form(scope, receive) if is_page else None
        if isinstance(given, Response):
            return given
        try:
            if given is not None:
                return await self._log_in(scope, given, sessions)
            connection.known = sessions.knows(headers) or await self._has_token(scope, sessions)
        except TooManyGuessesError as error:
            connection.known = False
            wait = {"Retry-After": str(int(error.seconds) + 1)}
            said = (
                f"too many wrong tokens came from your address; try again in {error.seconds:.0f} s"
            )
            if is_page:
                return HTMLResponse(LOGIN.format(said), 429, LOGIN_HEADERS | wait)
            return problem(429, said, wait)
        if connection.known:
            return None
        if is_page:
            text = "A token is needed to see this collection."
            return HTMLResponse(LOGIN.format(text), 401, LOGIN_HEADERS)
        return problem(
            401,
            "a token is needed: send it as Authorization: Bearer",
            {"WWW-Authenticate": "Bearer"},
        )

    async def _has_token(self, scope: Scope, sessions: Sessions) -> bool:
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            return False
        return await self._look(scope, token, sessions)

    async def _look(self, scope: Scope, token: str, sessions: Sessions) -> bool:
        """Tell whether this is the token, as soon as it is the client's turn."""
        if connection_of(scope).known and sessions.is_token(token):
            return True  # it has shown the token before: clients that guess cannot make it wait
        peer = peer_of(scope.get("client"))
        return await self._guesses.look(peer, lambda: sessions.is_token(token))

    async def _log_in(self, scope: Scope, token: str, sessions: Sessions) -> Response:
        if not await self._look(scope, token, sessions):
            text = html.escape("That is not the token.")
            return HTMLResponse(LOGIN.format(text), 401, LOGIN_HEADERS)
        connection_of(scope).known = True
        # Relative, so that it leads to the page even if a proxy has put that below a path.
        return RedirectResponse("./", 303, {"Set-Cookie": sessions.start()})


async def _token_in_form(scope: Scope, receive: Receive) -> str | Response | None:
    """Return the token that a browser sends to the page; None if there is none."""
    if scope["method"] == "GET":
        form = scope["query_string"]
    elif scope["method"] == "POST":
        form = b""
        try:
            async with asyncio.timeout(FORM_SECONDS):
                more = True
                while more and len(form) <= MOST_FORM:
                    message = await receive()
                    form += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            return problem(408, "the request took too long to arrive")
        if len(form) > MOST_FORM:
            return problem(413, f"the form has more than {MOST_FORM:,} bytes")
    else:
        return None
    try:
        given = parse_qs(form.decode("latin-1"), max_num_fields=MOST_FIELDS).get("token", [])
    except ValueError:
        return problem(400, f"the form has more than {MOST_FIELDS} fields")
    return given[0] if given else None


def _malformed(scope: Scope) -> Response | None:
    """Return a refusal if proxies might interpret a request differently."""
    headers = Headers(scope=scope)
    if connection_of(scope).malformed:
        return problem(400, connection_of(scope).malformed)
    for name in ONCE:
        if len(headers.getlist(name)) > 1:
            return problem(400, f"the {name.title()} header is given more than once")
    if "host" not in headers:
        return problem(400, "there is no Host header")
    if not _LENGTH.fullmatch(headers.get("content-length", "0")):
        return problem(400, "the Content-Length header is malformed")
    return None


def _is_link(scope: MutableMapping[str, Any], headers: Headers) -> bool:
    """Tell whether a request follows a link to the page itself, which gives nothing away."""
    return (
        scope["path"] == "/"
        and scope["method"] == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
