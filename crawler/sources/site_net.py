"""What guards Scrapy's connections: vetted addresses, bounded headers.

Every name, redirects' and IP literals' included, goes through crawler.resolver, and Twisted connects to the address
that came out of it: a name that answers differently the second time gains nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer  # type: ignore[import-untyped]

from crawler.address import Address, AddressError
from crawler.resolver import Resolver, ResolverConfig

logger = logging.getLogger(__name__)

MAX_HEADER_BYTES = 256 * 1024
_IN_HEADERS = frozenset({"STATUS", "HEADER"})


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """The look-up ends by its own deadline."""


@implementer(IHostnameResolver)
class VettedNames:
    """Scrapy's DNS_RESOLVER: names to addresses that may be connected to, and to nothing else."""

    def __init__(self, reactor: Any, resolver: Resolver, timeout_s: float) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._timeout_s = timeout_s

    @classmethod
    def from_crawler(cls, crawler: Any, reactor: Any) -> VettedNames:
        config = ResolverConfig(allow_private=crawler.settings.getbool("GPTFACE_ALLOW_PRIVATE"))
        return cls(reactor, Resolver(config), crawler.settings.getfloat("DOWNLOAD_TIMEOUT"))

    def install_on_reactor(self) -> None:
        self._reactor.installNameResolver(self)

    def resolveHostName(  # noqa: N802 (Twisted's name)
        self,
        resolutionReceiver: Any,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[type[Any]] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> _Resolution:
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def done(ips: list[str]) -> None:
            for ip in ips:
                kind = IPv6Address if ":" in ip else IPv4Address
                resolutionReceiver.addressResolved(kind(transportSemantics, ip, portNumber))
            resolutionReceiver.resolutionComplete()

        pool = self._reactor.getThreadPool()
        deferToThreadPool(self._reactor, pool, self._vetted, hostName, portNumber).addCallback(done)
        return resolution

    def _vetted(self, host: str, port: int) -> list[str]:
        address = Address("http", host.strip("[]").lower(), port or 80, "/")
        try:
            return self._resolver.ips(address, time.monotonic() + self._timeout_s)
        except AddressError as error:
            logger.warning("not connected: %s", error.detail)
            return []


class BoundedHeadersHandler(HTTP11DownloadHandler):
    """Scrapy's HTTP/1.1 with a bound on an answer's headers, interim (1xx) answers included; Twisted has none."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._pool._factory = _bounded(self._pool._factory)


def _bounded(factory: type[Any]) -> type[Any]:
    class Bounded(factory):
        noisy = False

        def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
            protocol = super().buildProtocol(addr)
            receive = protocol.dataReceived

            def data_received(data: bytes) -> None:
                parser = protocol._parser
                if parser is not None and parser.state in _IN_HEADERS:
                    parser.head_bytes = getattr(parser, "head_bytes", 0) + len(data)
                    if parser.head_bytes > MAX_HEADER_BYTES:
                        protocol.transport.abortConnection()
                        return
                receive(data)

            protocol.dataReceived = data_received
            return protocol

    return Bounded
