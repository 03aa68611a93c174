"""A small hostile web server on loopback, scripted per path, that counts what it was asked."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


def chunked(chunk: bytes, times: int, headers: dict[str, str] | None = None) -> Handler:
    """A body in `times` chunks, without a length; endless for all purposes where `times` is large."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.end_headers()
        for _ in range(times):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        request.wfile.write(b"0\r\n\r\n")

    return handle


def raw(data: bytes, close: bool = True) -> Handler:
    """These bytes, head and all."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)
        request.wfile.flush()
        request.close_connection = close

    return handle


def reset(request: BaseHTTPRequestHandler) -> None:
    """Half a body, then a TCP reset."""
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + JPEG)(request)
    time.sleep(0.05)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def slow_headers(request: BaseHTTPRequestHandler) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100:
        request.wfile.write(bytes([byte]))
        request.wfile.flush()
        time.sleep(0.1)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's TLS context with a certificate for 127.0.0.1 that nobody has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password)
    file = folder / "server.pem"
    file.write_bytes(pem + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


class Web:
    """Routes by path; `asked` counts requests by path; what has no route is 404. With `tls` it speaks https."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
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
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
