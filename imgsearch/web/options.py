"""How a collection is served, and what is asked of whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import SettingError
from imgsearch.web.hosts import MalformedError, is_loopback, name_in
from imgsearch.web.sessions import LEAST_TOKEN, fault_of_token, new_token

__all__ = ["ServerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to serve.

    Attributes:
        host: Address or name to listen at.
        port: Port to listen at; 0 for any that is free.
        allowed_hosts: Further hosts, perhaps with ports, that requests may be addressed to: the
            public names that a reverse proxy answers to.
        token: What a client has to know; None if nothing.
        insecure: Whether others than this machine may ask without a token.
        guesses: Wrong tokens of one address that are answered at once.
        guess_seconds: Seconds between further ones.
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
        SettingError: It would let others in without a token, the token is easily guessed, or an
            allowed host is malformed.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    allowed_hosts: tuple[str, ...] = ()
    token: str | None = None
    insecure: bool = False
    guesses: int = 10
    guess_seconds: float = 0.5
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
        outside = [] if is_loopback(self.host) else [self.host]
        for host in self.allowed_hosts:
            try:
                outside += [] if is_loopback(name_in(host)) else [host]
            except MalformedError as error:
                raise SettingError(
                    f"{host[:100]!r} is not a host; give a name as photos.example, or NAME:PORT"
                ) from error
        if outside and not (self.token or self.insecure):
            raise SettingError(
                f"{outside[0]} can be reached from other machines: give a --token that they have "
                "to know, or say --insecure"
            )
        fault = None if self.token is None else fault_of_token(self.token)
        if fault is not None:
            raise SettingError(
                f"the token is too easy to guess or cannot be sent: {fault}; it needs at least "
                f"{LEAST_TOKEN} visible ASCII characters, such as {new_token()} (or --token auto)"
            )
