"""Recognise clients that have shown the token: programs by the token, browsers by a secret.

Each browser gets its own secret in a cookie. It is random and lives as long as the server, so it
allows no offline guessing of the token, and a restart or a logout revokes it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from starlette.datastructures import Headers

from imgsearch.web.remembering import Remembered

__all__ = ["LEAST_TOKEN", "Sessions", "fault_of_token", "new_token"]

LEAST_TOKEN = 8  # characters
SECONDS = 30 * 24 * 3600  # lifetime of the cookie
_MOST_SESSIONS = 1_000
_VISIBLE = re.compile(r"[!-~]+")


def new_token() -> str:
    """Return a random token that is hard to guess."""
    return secrets.token_urlsafe(18)


def fault_of_token(token: str) -> str | None:
    """Return a phrase that says what is wrong with a token; None if nothing is."""
    if not token.isascii():
        return "it has characters that are not ASCII"
    if not _VISIBLE.fullmatch(token):
        return "it has blanks or control characters"
    if len(token) < LEAST_TOKEN:
        return f"it has fewer than {LEAST_TOKEN} characters"
    return None


class Sessions:
    """The browsers that have shown one server's token."""

    def __init__(self, token: str, port: int) -> None:
        self._token = token.encode()
        self._name = f"imgsearch-{port}"  # browsers share cookies between ports
        self._open: Remembered[bytes, bool] = Remembered(_MOST_SESSIONS)

    def is_token(self, given: str) -> bool:
        """Tell whether this is the token, in a time that does not depend on what is wrong."""
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

    def start(self) -> str:
        """Return the Set-Cookie header for a browser that has just shown the token."""
        secret = secrets.token_urlsafe(32)
        self._open.put(_digest(secret), True)
        return self._cookie(secret, SECONDS)

    def knows(self, headers: Headers) -> bool:
        """Tell whether a request has the cookie of a browser that has shown the token."""
        return any(self._open.get(_digest(secret)) for secret in self._secrets(headers))

    def end(self, headers: Headers) -> str:
        """Forget the browser that sent a request; return a Set-Cookie header to drop its cookie."""
        for secret in self._secrets(headers):
            self._open.drop(_digest(secret))
        return self._cookie("", 0)

    def _secrets(self, headers: Headers) -> list[str]:
        """Return the values of our cookie in a request; other cookies may hold anything."""
        pairs = [
            pair.strip().partition("=")
            for header in headers.getlist("cookie")
            for pair in header.split(";")
        ]
        return [value for name, _, value in pairs if name == self._name]

    def _cookie(self, value: str, seconds: int) -> str:
        """Return a Set-Cookie header, without a Path so that it covers the page's own folder."""
        return f"{self._name}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
