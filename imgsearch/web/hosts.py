"""Check whether a request is meant for this server, and identify the client that sent it.

The Host and Origin headers tell. An attacker may have rebound a foreign name to our address, but
cannot rebind an address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

__all__ = ["MalformedError", "Names", "address_of", "is_loopback", "name_in", "peer_of"]

# RFC 9112, 3.2, without user information and percent-encoding, which no client sends.
_AUTHORITY = re.compile(
    r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"https?://(?P<authority>[^/?#@\s]+)", re.IGNORECASE)
_MOST_PORT = 65_535
_IPV6_HOME = 64  # prefix length of the network that a provider assigns to a household


class MalformedError(ValueError):
    """A header that does not follow its grammar."""


class Names:
    """The names that one server answers to."""

    def __init__(self, host: str, allowed: Iterable[str]) -> None:
        """Take the host that the server listens at, and further hosts, optionally with ports."""
        self._pages = frozenset(each.lower() for each in allowed)
        self._names = {host.lower(), *map(name_in, self._pages)}
        wildcard = address_of(host)
        self._anywhere = wildcard is not None and wildcard.is_unspecified
        if self._anywhere:
            machine = socket.gethostname().lower()
            self._names |= {machine, f"{machine}.local"}

    def has(self, host: str) -> bool:
        """Tell whether a Host header names this server.

        The port is ignored, as it may have been forwarded.

        Raises:
            MalformedError: If the header is not a host with an optional port.
        """
        name = name_in(host) if host else ""
        if is_loopback(name) or name in self._names:
            return True
        return self._anywhere and address_of(name) is not None

    def has_page(self, origin: str, host: str) -> bool:
        """Tell whether an Origin header names a page of this server, addressed as `host`.

        A reverse proxy may have replaced the Host header, but not the Origin header.
        """
        found = _ORIGIN.fullmatch(origin)
        return found is not None and found["authority"].lower() in (host.lower(), *self._pages)


def name_in(authority: str) -> str:
    """Return the host in HOST or HOST:PORT, in lower case and without brackets.

    Raises:
        MalformedError: If `authority` is neither.
    """
    found = _AUTHORITY.fullmatch(authority)
    if not found or int(found["port"] or 0) > _MOST_PORT:
        raise MalformedError(authority)
    return found["host"].lower().strip("[]")


def is_loopback(host: str) -> bool:
    """Tell whether a name or address is a loopback one, which other machines cannot reach."""
    if host == "localhost":
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse a host as an IP address; return None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def peer_of(client: tuple[str, int] | None) -> str:
    """Return an address or network that identifies the machine or household of a client.

    Args:
        client: The client's address and port, as in an ASGI scope; None if they are not known.
    """
    host = client[0] if client else ""
    address = address_of(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_HOME), strict=False))
    return host
