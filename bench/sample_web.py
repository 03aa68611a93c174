"""How many pool pictures per second the sample web's server gives from one core: `python -m bench.sample_web`.

The server is held to one core where the system allows it; clients with keep-alive connections, without pipelining, run
in this process. All files must have the right length, and a sample of them is compared and decoded. One line of JSON
last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import cv2
import numpy as np

from sample_web.server import SampleWeb

TARGET_PER_S = 2000
_CHECKED = 200


class Client(asyncio.Protocol):
    """One keep-alive connection that asks for one picture after another from a shared counter."""

    def __init__(self, numbers: range, taken: list[int], done: asyncio.Future[None]) -> None:
        self.numbers, self.taken, self.done = numbers, taken, done
        self.buffer = bytearray()
        self.expected = -1  # bytes of the answer under way; -1 before its head is complete
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        if self.taken[0] >= len(self.numbers):
            self.transport.close()
            return
        number = self.numbers[self.taken[0]]
        self.taken[0] += 1
        self.transport.write(b"GET /pool/%d.jpg HTTP/1.1\r\nHost: bench\r\n\r\n" % number)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.expected < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"unexpected answer: {head[:80]!r}")
            self.expected = end + 4 + int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.buffer) >= self.expected:
            self.received += len(self.buffer)
            self.buffer.clear()
            self.expected = -1
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def ask_all(host: str, port: int, numbers: range, connections: int) -> int:
    """Ask for all numbers over so many connections; the number of bytes received."""
    loop = asyncio.get_running_loop()
    taken, clients, ends = [0], [], []
    for _ in range(connections):
        end: asyncio.Future[None] = loop.create_future()
        _, client = await loop.create_connection(lambda e=end: Client(numbers, taken, e), host, port)  # type: ignore[misc]
        clients.append(client)
        ends.append(end)
    await asyncio.gather(*ends)
    return sum(client.received for client in clients)


def check_distinct(url: str, count: int) -> None:
    """`count` pictures are decodable and all different."""
    opener = build_opener(ProxyHandler({}))
    bodies = []
    for number in range(count):
        with opener.open(f"{url}/pool/{number}.jpg") as answer:
            bodies.append(answer.read())
    if len(set(bodies)) != count:
        raise RuntimeError("pool pictures are not distinct")
    if any(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR) is None for body in bodies):
        raise RuntimeError("a pool picture does not decode")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far; nan where the system does not tell."""
    try:
        import psutil
    except ImportError:
        return float("nan")
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="pictures to ask for")
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    with SampleWeb(images=50) as web:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(web.pid, {max(os.sched_getaffinity(0))})
        check_distinct(web.url, _CHECKED)  # also renders the pool
        parts = urlsplit(web.url)
        assert parts.hostname is not None and parts.port is not None
        cpu, started = cpu_seconds(web.pid), time.perf_counter()
        size = asyncio.run(ask_all(parts.hostname, parts.port, range(options.images), options.connections))
        seconds, cpu = time.perf_counter() - started, cpu_seconds(web.pid) - cpu
    result = {
        "images": options.images,
        "connections": options.connections,
        "seconds": round(seconds, 3),
        "images_per_s": round(options.images / seconds, 1),
        "images_per_server_cpu_s": round(options.images / cpu, 1),
        "mean_bytes": round(size / options.images),
        "target_per_s": TARGET_PER_S,
        "ok": options.images / seconds >= TARGET_PER_S,
    }
    print(f"{result['images_per_s']} images/s over {options.connections} connections (target {TARGET_PER_S})")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
