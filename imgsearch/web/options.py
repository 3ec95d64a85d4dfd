"""Options of the server: its address, its access rules and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import SettingError
from imgsearch.web.hosts import MalformedError, is_loopback, name_in
from imgsearch.web.sessions import LEAST_TOKEN, fault_of_token, new_token

__all__ = ["ServerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The options of the server.

    Attributes:
        host: Address or name to listen at.
        port: Port to listen at; 0 for any free port.
        allowed_hosts: Further hosts, optionally with ports, that requests may be addressed to:
            the public names that a reverse proxy answers to.
        token: The token that clients must know; None if they need none.
        insecure: Whether other machines may send requests without a token.
        read_only: Whether to refuse requests that would change the collection. They are also
            refused if other machines can connect without a token.
        guesses: Number of wrong tokens from one address that are answered at once.
        guess_seconds: Seconds between further wrong tokens.
        max_upload: Maximum size of a request in bytes.
        max_pixels: Maximum number of pixels of an uploaded image.
        upload_seconds: Maximum seconds for a request's body to arrive.
        idle_seconds: Maximum seconds to wait for the next part of a request.
        answer_seconds: Maximum seconds to spend on a response.
        decode_seconds: Maximum CPU seconds to spend on decoding an image.
        max_uploads: Maximum number of requests with a body handled at once; others are refused.
        thumbnails: Maximum size of the thumbnail cache in bytes.
        cache: Folder of the thumbnail cache; None for the user's cache folder.

    Raises:
        SettingError: If other machines could connect without a token, the token is easy to guess,
            or an allowed host is malformed.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    allowed_hosts: tuple[str, ...] = ()
    token: str | None = None
    insecure: bool = False
    read_only: bool = False
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

    @property
    def may_change(self) -> bool:
        """Whether clients may change the collection: all of them are here, or know the token."""
        return not self.read_only and self.knows_clients

    @property
    def knows_clients(self) -> bool:
        """Whether all clients are on this machine, or know the token."""
        return self.token is not None or not self._outside()

    @property
    def may_fill(self) -> bool:
        """Whether clients may choose a folder to index: all of them are on this machine."""
        return not self.read_only and not self._outside()

    def _outside(self) -> list[str]:
        """Return the hosts by which other machines can reach the server."""
        outside = [] if is_loopback(self.host) else [self.host]
        for host in self.allowed_hosts:
            try:
                outside += [] if is_loopback(name_in(host)) else [host]
            except MalformedError as error:
                raise SettingError(
                    f"{host[:100]!r} is not a host; give a name as photos.example, or NAME:PORT"
                ) from error
        return outside

    def __post_init__(self) -> None:
        outside = self._outside()
        if outside and not (self.token or self.insecure):
            raise SettingError(
                f"{outside[0]} can be reached from other machines: require a token with --token, "
                f"or pass --insecure"
            )
        fault = None if self.token is None else fault_of_token(self.token)
        if fault is not None:
            raise SettingError(
                f"the token is too easy to guess or cannot be sent: {fault}; it needs at least "
                f"{LEAST_TOKEN} visible ASCII characters, such as {new_token()} (or --token auto)"
            )
