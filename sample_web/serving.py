"""The process that serves a small web: four ports, until it is told to stop or its parent is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import cv2

from sample_web.answers import Web, origins_at
from sample_web.errors import InputError
from sample_web.protocol import DateCache, HttpProtocol
from sample_web.site import HOSTS, Site

ADDRESS = "127.0.0.1"
_PARENT_CHECK_S = 0.5
_TRIES = 100


def bind_ports(port: int) -> list[socket.socket]:
    """Listening sockets on `HOSTS` ports in a row from `port` on; 0 chooses free ones.

    Raises InputError where one is taken.
    """
    if port != 0 and not 1 <= port <= 65_535 - (HOSTS - 1):
        raise InputError(f"port {port}: choose 1 to {65_535 - (HOSTS - 1)}, or 0 for any free one")
    for _ in range(_TRIES if port == 0 else 1):
        sockets = _try_bind(port)
        if sockets:
            return sockets
    taken = f"ports {port} to {port + HOSTS - 1}: not all free" if port else f"no {HOSTS} free ports in a row"
    raise InputError(f"{taken}; choose another --port (0 for any)")


def _try_bind(port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for k in range(HOSTS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            first = sockets[0].getsockname()[1] if k else port
            sock.bind((ADDRESS, first + k if k else port))
            sock.listen(512)
        except (OSError, OverflowError):
            for each in sockets:
                each.close()
            return []
    return sockets


def serve(site: Site, port: int, parent: int | None, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, or until process `parent` is no longer the parent; `on_ready` gets the address."""
    cv2.setNumThreads(1)
    asyncio.run(_serve(site, bind_ports(port), parent, on_ready))


async def _serve(site: Site, sockets: list[socket.socket], parent: int | None, on_ready: Callable[[str], None]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    origins = origins_at(ADDRESS, sockets[0].getsockname()[1])
    web, dates, connections = Web(site, origins), DateCache(), set[Any]()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # one thread: rendering leaves the event loop free, so pages, the pool and slow answers do not wait for it
    with ThreadPoolExecutor(1, thread_name_prefix="render") as executor:
        servers = [
            await loop.create_server(lambda host=k: HttpProtocol(web, host, executor, dates, connections), sock=sock)  # type: ignore[misc]
            for k, sock in enumerate(sockets)
        ]
        on_ready(origins[0])
        while not stop.is_set() and (parent is None or os.getppid() == parent):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PARENT_CHECK_S)
        for server in servers:
            server.close()
        for connection in list(connections):
            connection.transport.abort()
        executor.shutdown(wait=False, cancel_futures=True)
