"""How a collection is served, and what is asked of whom."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import SettingError

__all__ = ["ServerOptions", "address_of", "is_loopback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to serve.

    Attributes:
        host: address or name to listen at.
        port: 0 for any that is free.
        token: what a client has to know; None if nothing.
        insecure: others than this machine may ask without a token.
        max_upload: bytes of a request.
        max_pixels: of an image that is uploaded.
        upload_seconds: that a request's body may take.
        idle_seconds: that may pass until more of a request is there.
        answer_seconds: that an answer may take.
        decode_seconds: of computing that decoding an image may take.
        max_uploads: requests with a body that are dealt with at once; others are sent away.
        thumbnails: bytes of thumbnails that are kept.
        cache: the folder for these; None for the user's.

    Raises:
        SettingError: it would let others in without a token.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    insecure: bool = False
    max_upload: int = 64_000_000
    max_pixels: int = 100_000_000
    upload_seconds: float = 60.0
    idle_seconds: float = 10.0
    answer_seconds: float = 60.0
    decode_seconds: float = 10.0
    max_uploads: int = 64
    thumbnails: int = 1_000_000_000
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not (self.token or self.insecure or is_loopback(self.host)):
            raise SettingError(
                f"{self.host} can be reached from other machines: give a --token that they have to "
                "know, or say --insecure"
            )
        if self.token is not None and not self.token.isascii():
            raise SettingError("a token is made of ASCII characters")


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is this machine's own, which no other can reach."""
    if host == "localhost":
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is given by; None if it is given by a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
