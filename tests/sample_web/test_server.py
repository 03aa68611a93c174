"""The small web over real sockets."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from sample_web.__main__ import main
from sample_web.answers import Web, origins_at
from sample_web.errors import InputError
from sample_web.server import SampleWeb
from sample_web.site import MAIN, Site

IMAGES = 200


@pytest.fixture(scope="module")
def web() -> Iterator[SampleWeb]:
    with SampleWeb(images=IMAGES, seed=1) as running:
        yield running


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)


def ask(url: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = connect(url)
    connection.request(method, urlsplit(url).path or "/", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def raw(web: SampleWeb, data: bytes, host: int = 0) -> bytes:
    """What the server sends to these bytes until it closes."""
    parts = urlsplit(web.origins[host])
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as sock:
        sock.sendall(data)
        received = b""
        while part := sock.recv(65536):
            received += part
    return received


def picture_url(web: SampleWeb, kind: str, variant: str | None = None) -> str:
    rows = web.truth().to_pylist()
    return next(r["image_url"] for r in rows if r["kind"] == kind and variant in (None, r["variant"]))


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_connection_serves_many_requests(web: SampleWeb) -> None:
    connection = connect(web.url)
    for path in ("/", "/section/0.html", "/people/0.html", "/robots.txt", "/nowhere"):
        connection.request("GET", path)
        sock = connection.sock
        answer = connection.getresponse()
        answer.read()
        assert connection.sock is sock and sock is not None, path
        assert answer.status == (404 if path == "/nowhere" else 200)
    connection.close()


def test_every_picture_answers_as_its_kind_says(web: SampleWeb) -> None:
    rows = [r for r in web.truth().to_pylist()[:60] if r["kind"] != "slow"]
    for row in rows:
        answer, body = ask(row["image_url"])
        expected = {"404": 404, "500": 500}.get(row["variant"], 200)
        assert answer.status == expected, row
        assert int(answer.headers["Content-Length"]) == len(body)
        assert answer.headers["X-Robots-Tag"] == ("noai" if row["kind"] == "noai" else None)
        if row["expected_reason"] is None:
            assert answer.headers["Content-Type"] in {"image/jpeg", "image/png", "image/webp"}
            picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape == (row["size_px"], row["size_px"], 3)


def test_head_tells_the_same_without_the_body(web: SampleWeb) -> None:
    for url in (web.url + "/people/0.html", picture_url(web, "face"), web.url + "/pool/3.jpg"):
        got, body = ask(url)
        head, nothing = ask(url, "HEAD")
        assert nothing == b"" and head.status == 200
        for name in ("Content-Length", "Content-Type", "ETag"):
            assert head.headers[name] == got.headers[name]
        assert int(head.headers["Content-Length"]) == len(body)


def test_what_has_not_changed_is_not_sent_again(web: SampleWeb) -> None:
    for url in (picture_url(web, "face"), web.url + "/people/3.html", web.url + "/section/0.html", web.url + "/"):
        etag = ask(url)[0].headers["ETag"]
        again, body = ask(url, **{"If-None-Match": etag})
        assert (again.status, body) == (304, b"")
        assert again.headers["ETag"] == etag
        assert ask(url, **{"If-None-Match": '"other"'})[0].status == 200
    assert ask(picture_url(web, "broken", "404"))[0].headers["ETag"] is None


def test_an_etag_names_the_content_alone() -> None:
    small, grown = (Web(Site(images, seed=1), origins_at("127.0.0.1", 8717)) for images in (50, 200))
    spec = small.site.picture(3)
    assert small.picture_answer(spec).etag == grown.picture_answer(spec).etag != ""
    assert small.text_answer(MAIN, "/people/0.html").etag == grown.text_answer(MAIN, "/people/0.html").etag
    assert small.text_answer(MAIN, "/").etag != grown.text_answer(MAIN, "/").etag  # links to more sections


def test_robots_txt_differs_from_host_to_host(web: SampleWeb) -> None:
    bodies = [ask(origin + "/robots.txt")[1].decode() for origin in web.origins]
    assert "Disallow: /\n" in bodies[2]
    assert all("Disallow: /\n" not in bodies[k] for k in (0, 1, 3))


def test_a_picture_has_one_host_alone(web: SampleWeb) -> None:
    url = picture_url(web, "refused")
    assert url.startswith(web.origins[2])
    assert ask(web.url + urlsplit(url).path)[0].status == 404
    assert ask(web.origins[1] + "/people/0.html")[0].status == 404


def test_slow_answers_do_not_hold_up_others(web: SampleWeb) -> None:
    url, waited = picture_url(web, "slow"), []

    def wait() -> None:
        started = time.monotonic()
        ask(url)
        waited.append(time.monotonic() - started)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    for page in range(5):
        assert ask(f"{web.url}/people/{page}.html")[0].status == 200
    others = time.monotonic() - started
    thread.join()
    assert waited[0] >= 1.0
    assert others < waited[0]


def test_requests_are_counted_per_host_and_path(web: SampleWeb) -> None:
    authority = urlsplit(web.origins[1]).netloc
    before = web.requests()[(authority, "/counted")]
    ask(web.origins[1] + "/counted")
    ask(web.origins[1] + "/counted", "HEAD")
    after = web.requests()
    assert after[(authority, "/counted")] - before == 2
    assert not [path for _, path in after if path.startswith("/admin")]


def test_pipelined_requests_are_answered_in_order(web: SampleWeb) -> None:
    slow = urlsplit(picture_url(web, "face")).path.encode()
    paths = [b"/pool/1.jpg", slow, b"/robots.txt", b"/pool/2.jpg"]
    data = b"".join(b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths[:-1])
    data += b"HEAD %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % paths[-1]
    host = next(k for k, o in enumerate(web.origins) if picture_url(web, "face").startswith(o + "/"))
    answers = raw(web, data, host).split(b"\r\n\r\n")[:-1]
    assert [a.split(b" ")[1] for a in answers] == [b"200"] * 4
    assert b'"pool-1"' in answers[0] and b"text/plain" in answers[2] and b'"pool-2"' in answers[3]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET /" + b"a" * 20_000, 431),
        (b"GET /robots.txt HTTP/1.0\r\n\r\n", 200),
        (b"GET http://x/robots.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
    ],
)
def test_odd_requests_are_answered_and_the_connection_closed(web: SampleWeb, request_bytes: bytes, status: int) -> None:
    assert raw(web, request_bytes).startswith(b"HTTP/1.1 %d " % status)


def test_pool_gives_as_many_distinct_pictures_as_asked(web: SampleWeb) -> None:
    connection, bodies = connect(web.url), set()
    for number in (0, 1, 64, 128, 999_999, 1_000_000, 123_456_789):
        connection.request("GET", f"/pool/{number}.jpg")
        body = connection.getresponse().read()
        assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).shape == (256, 256, 3)
        bodies.add(body)
    connection.close()
    assert len(bodies) == 7


def test_two_webs_of_the_same_seed_serve_the_same_bytes(web: SampleWeb) -> None:
    with SampleWeb(images=IMAGES, seed=1) as other:
        rows = [r for r in web.truth().to_pylist() if r["kind"] == "face"][:3]
        twins = {r["picture"]: r["image_url"] for r in other.truth().to_pylist()}
        for row in rows:
            assert ask(row["image_url"])[1] == ask(twins[row["picture"]])[1]


def test_stop_ends_the_process_and_frees_the_ports() -> None:
    web = SampleWeb(images=50)
    web.start()
    url, pid, port = web.url, web.pid, urlsplit(web.url).port
    assert port is not None and ask(url)[0].status == 200
    web.stop()
    web.stop()  # twice is no error
    assert not alive(pid)
    with SampleWeb(images=50, port=port) as again:
        assert again.url == url


def test_taken_ports_are_an_input_error(web: SampleWeb) -> None:
    port = urlsplit(web.url).port
    assert port is not None
    with pytest.raises(InputError, match=f"ports {port} to {port + 3}: not all free"):
        SampleWeb(images=50, port=port).start()


def test_the_server_dies_with_a_killed_parent() -> None:
    code = "import time; from sample_web.server import SampleWeb; w = SampleWeb(images=50); w.start(); "
    code += "print(w.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--images", "3"]) == 2
    assert "images 3: choose 50 to 1000000" in capsys.readouterr().err
    assert main(["--port", "70000"]) == 2
    assert "port 70000: choose 1 to 65532" in capsys.readouterr().err


def test_the_web_is_not_asked_before_it_runs() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = SampleWeb(images=50).url
