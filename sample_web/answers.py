"""What the small web answers to a path, host by host. No sockets here."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

from sample_web.pages import home_html, picture_page_html, section_html
from sample_web.pictures import serve_picture
from sample_web.pool import POOL, PoolPicture, pool_picture
from sample_web.site import HOSTS, MAIN, NOAI, REFUSING, PictureSpec, Site

REQUESTS_PATH = "/admin/requests"
SLOW_S = 1.0
_ROBOTS = {REFUSING: "User-agent: *\nDisallow: /\n"}
_ROBOTS_OPEN = "User-agent: *\nDisallow: /admin/\n"
_IMAGE = re.compile(r"/img/(\d{1,7})\.(jpg|png|webp)")
_PAGE = re.compile(r"/(people|section)/(\d{1,7})\.html")
_POOL = re.compile(r"/pool/(\d{1,12})\.jpg")


@dataclass(frozen=True)
class Answer:
    """A response apart from its connection; `delay_s` is waited before it is sent."""

    status: int
    content_type: str
    body: bytes
    etag: str = ""
    robots_tag: str = ""
    delay_s: float = 0.0


@dataclass
class Web:
    """The hosts of one small web, and what has been asked of them."""

    site: Site
    origins: tuple[str, ...]
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, host: int, path: str) -> None:
        """Keep account of a request; the administrator's own are left out."""
        if path != REQUESTS_PATH:
            self.asked[(self.origins[host].removeprefix("http://"), path)] += 1

    def pool_picture(self, path: str) -> tuple[int, PoolPicture] | None:
        """Number and picture where `path` is one of the pool."""
        match = _POOL.fullmatch(path)
        return (int(match[1]), pool_picture(self.site.seed, int(match[1]) % POOL)) if match else None

    def picture_at(self, host: int, path: str) -> PictureSpec | None:
        """The picture at this address, or None: each has one host and one path."""
        match = _IMAGE.fullmatch(path)
        if match is None or int(match[1]) >= self.site.images:
            return None
        spec = self.site.picture(int(match[1]))
        return spec if spec.host == host and spec.path == path else None

    def picture_answer(self, spec: PictureSpec) -> Answer:
        """The picture itself: takes milliseconds, so call it outside the event loop."""
        served = serve_picture(self.site.seed, spec.index)
        return Answer(
            status=served.status,
            content_type=served.content_type,
            body=served.body,
            etag=content_etag(served.body) if served.status == 200 else "",
            robots_tag="noai" if spec.host == NOAI else "",
            delay_s=SLOW_S if spec.kind == "slow" else 0.0,
        )

    def text_answer(self, host: int, path: str) -> Answer:
        """robots.txt, HTML pages, the account of requests; 404 for all else."""
        if path == "/robots.txt":
            return Answer(200, "text/plain; charset=utf-8", _ROBOTS.get(host, _ROBOTS_OPEN).encode())
        if path == REQUESTS_PATH and host == MAIN:
            rows = [[authority, where, count] for (authority, where), count in self.asked.items()]
            return Answer(200, "application/json", json.dumps(rows).encode())
        html = self._html(path) if host == MAIN else None
        if html is None:
            return Answer(404, "text/plain; charset=utf-8", b"Not Found\n")
        body = html.encode()
        return Answer(200, "text/html; charset=utf-8", body, content_etag(body))

    def _html(self, path: str) -> str | None:
        if path == "/":
            return home_html(self.site)
        match = _PAGE.fullmatch(path)
        if match is None:
            return None
        number = int(match[2])
        if match[1] == "section":
            return section_html(self.site, number)
        return picture_page_html(self.site, number, self.origins)


def content_etag(body: bytes) -> str:
    """An ETag that names the very bytes, so that a web that grew or looks otherwise sends again what changed, alone."""
    return f'"{blake2b(body, digest_size=8).hexdigest()}"'


def origins_at(host: str, port: int) -> tuple[str, ...]:
    """The addresses of the web's hosts from `port` on."""
    return tuple(f"http://{host}:{port + k}" for k in range(HOSTS))
