"""A static site of real portraits, a page per member of the United States' congress, over real HTTP."""

from __future__ import annotations

import contextlib
import csv
import functools
import html
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PORTRAITS = 539


@dataclass
class CongressSite:
    """`altered`: path -> other bytes, or None where it is gone; `asked`: every path that was asked for."""

    url: str = ""
    altered: dict[str, bytes | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[CongressSite]:
    """Serve `folder` on a free port of loopback for as long as the block lasts."""
    site = CongressSite()

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append(self.path)
            if self.path not in site.altered:
                super().do_GET()
                return
            body = site.altered[self.path]
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    site.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def write_site(data: Path, site: Path, members: int = PORTRAITS) -> None:
    """One page for each of the first members with portrait, name and a sentence, and an index of these pages."""
    if not (site / "images").is_symlink():
        (site / "images").symlink_to(data / "congress" / "images", target_is_directory=True)
    with (data / "congress" / "legislators.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))[:members]
    links = []
    for row in rows:
        name, text = html.escape(row["full_name"]), html.escape(_sentence(row))
        page = (
            f"<!doctype html><meta charset=utf-8><title>{name}</title><h1>{name}</h1>"
            f'<figure><img src="/{row["file"]}" alt="{text}"><figcaption>{name}</figcaption></figure><p>{text}</p>'
        )
        (site / f"{row['bioguide']}.html").write_text(page, encoding="utf-8")
        links.append(f'<a href="/{row["bioguide"]}.html">{name}</a>')
    (site / "index.html").write_text(f"<!doctype html><meta charset=utf-8>{'<br>'.join(links)}", encoding="utf-8")


def _sentence(row: dict[str, str]) -> str:
    """What the table says about a member, as a page would."""
    chamber = {"rep": "the House of Representatives", "sen": "the Senate"}[row["chamber"]]
    name, party, state, since = (row[key] for key in ("full_name", "party", "state", "first_term_start"))
    return f"{name}, {party} from {state}, is a member of {chamber} since {since}."
