"""The HTML of the small web."""

from __future__ import annotations

from html import escape

from sample_web import captions
from sample_web.site import MAIN, PictureSpec, Site
from sample_web.texts import PictureText, picture_text

# The heading is a word that no curating rule takes for a caption of the pictures below it.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><nav><a href="/">Home</a></nav><main><h1>Gallery</h1>
{body}
</main></body></html>
"""


def page_path(page: int) -> str:
    return f"/people/{page}.html"


def section_path(section: int) -> str:
    return f"/section/{section}.html"


def home_html(site: Site) -> str:
    """The page at "/": links to all sections."""
    return _links("Drawn people", [section_path(s) for s in range(site.sections)])


def section_html(site: Site, section: int) -> str | None:
    """A section page: links to its picture pages. None where there is no such section."""
    if not 0 <= section < site.sections:
        return None
    return _links(f"Section {section}", [page_path(p) for p in site.section_pages(section)])


def _links(title: str, paths: list[str]) -> str:
    items = "\n".join(f'<li><a href="{path}">{path.strip("/").removesuffix(".html")}</a></li>' for path in paths)
    return _PAGE.format(title=title, body=f"<ul>\n{items}\n</ul>")


def picture_page_html(site: Site, page: int, origins: tuple[str, ...]) -> str | None:
    """A page with its pictures; `origins` are the web's hosts ("http://127.0.0.1:8717", ...). None where none is."""
    if not 0 <= page < site.pages:
        return None
    specs = [site.picture(i) for i in site.page_pictures(page)]
    body = "\n".join(_figure(site, spec, origins) for spec in specs)
    return _PAGE.format(title=f"Gallery {page}", body=body)


def _figure(site: Site, spec: PictureSpec, origins: tuple[str, ...]) -> str:
    text = picture_text(site, spec)
    # pictures of the same host are linked without it, as most sites do
    address = spec.path if spec.host == MAIN else origins[spec.host] + spec.path
    return _PLACED[text.place](address, text, captions.boilerplate("alt", site.seed, spec.index))


def _image(address: str, alt: str) -> str:
    return f'<img src="{escape(address)}" alt="{escape(alt)}">'


def _alt(address: str, text: PictureText, nothing: str) -> str:
    return f"<p>{_image(address, text.caption)}</p>"


def _alt_and_figcaption(address: str, text: PictureText, nothing: str) -> str:
    caption = f"<figcaption>{escape(text.second)}</figcaption>"
    return f"<figure>{_image(address, text.caption)}{caption}</figure>"


def _figcaption(address: str, text: PictureText, nothing: str) -> str:
    return f"<figure>{_image(address, nothing)}<figcaption>{escape(text.caption)}</figcaption></figure>"


def _card(address: str, text: PictureText, nothing: str) -> str:
    return f'<div class="card">{_image(address, "")}<p>{escape(text.caption)}</p></div>'


_PLACED = {
    "alt": _alt,
    "alt_and_figcaption": _alt_and_figcaption,
    "figcaption": _figcaption,
    "card": _card,
    "boilerplate": _alt,
}
