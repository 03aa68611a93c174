"""A small hostile web server on loopback, scripted per path, that counts what it was asked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Handler = Callable[[BaseHTTPRequestHandler], None]

# The smallest things that pass for pictures by their first bytes.
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"j" * 200 + b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 100


def answer(
    body: bytes = JPEG, status: int = 200, headers: dict[str, str] | None = None, kind: str = "image/jpeg"
) -> Handler:
    """A handler that gives this answer."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return handle


def page(html: str, headers: dict[str, str] | None = None) -> Handler:
    return answer(html.encode(), headers=headers, kind="text/html; charset=utf-8")


def redirect(location: str) -> Handler:
    return answer(b"", 302, {"Location": location})


def drip(total: int, pause_s: float = 0.1) -> Handler:
    """A body of `total` bytes, one at a time."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(total))
        request.end_headers()
        for _ in range(total):
            request.wfile.write(b"\xff")
            request.wfile.flush()
            time.sleep(pause_s)

    return handle


class Web:
    """Routes by path; `asked` counts requests by path; what has no route is 404."""

    def __init__(self) -> None:
        self.routes: dict[str, Handler] = {}
        self.asked: Counter[str] = Counter()
        web = self

        class Scripted(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one write per answer

            def do_GET(self) -> None:
                web.asked[self.path] += 1
                handler = web.routes.get(self.path, answer(b"no such thing", 404, kind="text/plain"))
                try:
                    handler(self)
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self.server = Quiet(("127.0.0.1", 0), Scripted)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
