"""Which addresses may be asked: http and https on public hosts, and nothing else.

Crawled addresses are hostile input. The check is on the resolved IP address (crawler.resolver), and the connection then
goes to that very IP address, so a name that answers differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

from warehouse.schema import Reason

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL_CHARS = 8192
# Characters that a request line may hold as they are: RFC 3986 reserved and unreserved, and "%".
_SAFE = "/%:=&?~+!$,;'@()*[]|-._"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What `allow_private` opens: loopback and the private ranges of RFC 1918 and RFC 4193. Link-local addresses stay
# closed even then, because cloud metadata services answer there with credentials.
_PRIVATE: tuple[_Network, ...] = tuple(
    ipaddress.ip_network(net)
    for net in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
_METADATA = {ipaddress.ip_address("fd00:ec2::254")}  # the metadata service that hides inside fc00::/7
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressError(ValueError):
    """An address that must not or cannot be asked; `reason` is the closed enum's member for it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Address:
    """An http(s) address in the parts that a request needs; `target` is percent-encoded path and query."""

    scheme: str
    host: str  # lower case, IDNA-encoded, IPv6 without brackets
    port: int
    target: str

    @property
    def authority(self) -> str:
        """`scheme://host[:port]`, the unit of robots.txt (RFC 9309), default ports left out."""
        return f"{self.scheme}://{self.host_header}"

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@lru_cache(maxsize=4096)  # scheduling, consent and request each need the parts of the same address
def parse_address(url: str) -> Address:
    """Split and check `url`; raises AddressError(BAD_ADDRESS) for anything but a plain http(s) address."""
    if len(url) > _MAX_URL_CHARS:
        raise AddressError(Reason.BAD_ADDRESS, f"address of {len(url)} characters, at most {_MAX_URL_CHARS}")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = parts.hostname or ""
        # An IPv6 literal has no IDNA form; a label over 63 characters raises UnicodeError, a ValueError.
        host = host if ":" in host or host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as error:
        raise AddressError(Reason.BAD_ADDRESS, f"not an address: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise AddressError(Reason.BAD_ADDRESS, f"scheme {parts.scheme[:20]!r} is not http or https")
    if not host or any(c.isspace() or ord(c) < 33 or c in '<>"\\^`{|}' for c in host):
        raise AddressError(Reason.BAD_ADDRESS, "no valid host in the address")
    if parts.username is not None or parts.password is not None:
        raise AddressError(Reason.BAD_ADDRESS, "address with a user name or password")
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return Address(parts.scheme, host.rstrip(".").lower(), port or _DEFAULT_PORTS[parts.scheme], target)


def authority_of(url: str) -> str:
    """`scheme://host[:port]` of `url`, or "" where it is not an http(s) address."""
    try:
        return parse_address(url).authority
    except AddressError:
        return ""


def _embedded(ip: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address carries to (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip.sixtofour is not None:
            return ip.sixtofour
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


def is_permitted(ip: IPAddress, allow_private: bool) -> bool:
    """True where a crawler may connect to `ip`."""
    ip = _embedded(ip)
    if ip.is_multicast or ip in _METADATA:
        return False
    if ip.is_global:
        return True
    return allow_private and any(ip in net for net in _PRIVATE if net.version == ip.version)
