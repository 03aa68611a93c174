"""References as pages write them -> absolute addresses: base and relative, srcset, CSS, lazy loading, placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit, urlunsplit

MAX_URL_CHARS = 8192

# Attributes that lazy loaders use instead of src and srcset: lazysizes, jQuery.lazyload, unveil, bLazy, echo.js,
# layzr, slick, Flickity, WP Rocket, a3, Jetpack, Autoptimize, LiteSpeed, NitroPack, WP Fastest Cache, mod_pagespeed,
# Cloudflare Mirage, Optimole, Revolution Slider, Squarespace, Discuz, Zhihu, Taobao. The order is the preference.
LAZY_SRCSETS = (
    "data-srcset",
    "data-lazy-srcset",
    "data-original-set",
    "data-flickity-lazyload-srcset",
    "nitro-lazy-srcset",
    "data-wpfc-original-srcset",
    "data-pagespeed-lazy-srcset",
)
LAZY_SOURCES = (
    "data-src",
    "data-original",
    "data-lazy-src",
    "data-lazy",
    "data-lazyload",
    "data-lazyload-src",
    "data-flickity-lazyload",
    "data-flickity-lazyload-src",
    "nitro-lazy-src",
    "data-wpfc-original-src",
    "data-pagespeed-lazy-src",
    "data-cfsrc",
    "data-opt-src",
    "data-echo",
    "data-normal",
    "data-delayed-url",
    "data-actualsrc",
    "data-ks-lazyload",
    "data-defer-src",
    "data-hi-res-src",
    "data-image-src",
    "data-img-src",
    "data-img",
    "data-image",
    "data-url",
    "data-src-large",
    "data-src-medium",
    "data-src-small",
    "data-large-file",
    "data-orig-file",
    "lazy-src",
    "zoomfile",
    "file",
)
LAZY_BACKGROUNDS = ("data-bg", "data-background-image", "data-bg-src", "data-background")

# Attributes that other scripts use for other things: they count where they name an image file.
AMBIGUOUS = frozenset({"data-url", "data-image", "data-img", "data-normal", "file", "zoomfile", "data-background"})

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff")
_IMAGE_ENDING = re.compile(r"\.(?:jpe?g|jfif|png|webp|gif|avif|bmp|tiff?)(?:[?#]|$)", re.I)
PLACEHOLDER = (
    r"(?:^|/)(?:1x1|1px|blank|clear|clearpixel|empty|gray|grey|lazy|lazy-?load|loader|loading|ajax-loader|pixel"
    r"|placeholder|shim|spacer|spinner|trans|transparent)\.(?:gif|png|svg|jpe?g|webp)(?:[?#]|$)"
)
_PLACEHOLDER = re.compile(PLACEHOLDER, re.I)
_BACKGROUND = re.compile(
    r"""(?:^|[;{\s])background(?:-image)?\s*:[^;]*?url\(\s*"""
    r"""(?:"([^"]*)"|'([^']*)'|((?:\\[0-9a-f]{1,6}\s?|\\.|[^)"'\s\\])+))\s*\)""",
    re.I,
)
_CSS_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})\s?|(.))", re.S)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

# References that need no parsing: printable ASCII without backslash and with no "." that could be a dot segment.
_SAFE = r"[!$%&'()*+,\-.0-9:<=>@A-Z^_a-z{|}~\"`]"
_FULL = re.compile(rf"https?://[a-z0-9.\-]+(?::[0-9]+)?/(?:{_SAFE}|/)*(?:\?(?:{_SAFE}|[/?;])+)?(?:#[!-~]*)?")
_ROOTED = re.compile(rf"/(?![/.])(?:{_SAFE}|/(?!\.))*(?:\?(?:{_SAFE}|[/?;])+)?(?:#[!-~]*)?")


def absolute(reference: str, base: str) -> str | None:
    """The http(s) address that `reference` names on a page with base `base`, or None.

    Without fragment, and with "/" for an empty path, so that a front page has one address.
    """
    cleaned = reference.strip().translate({9: None, 10: None, 13: None})
    if not cleaned or len(cleaned) > MAX_URL_CHARS or _CONTROL.search(cleaned):
        return None
    try:
        parts = urlsplit(urljoin(base, cleaned))
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            return None
    except ValueError:
        return None
    return urlunsplit(parts._replace(path=parts.path or "/", fragment=""))


class Resolver:
    """`absolute` for many references with one base, without parsing those that are plain (nearly all are)."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._origin = (absolute("/", base) or "")[:-1]
        self._known: dict[str, str | None] = {}

    def __call__(self, reference: str | None) -> str | None:
        """The absolute address, or None where the reference names nothing on the web (data:, mailto:, broken)."""
        if not reference or len(reference) > MAX_URL_CHARS:
            return None
        if _FULL.fullmatch(reference):
            return reference.partition("#")[0]
        if self._origin and _ROOTED.fullmatch(reference):
            return self._origin + reference.partition("#")[0]
        if reference not in self._known:
            self._known[reference] = absolute(reference, self.base)
        return self._known[reference]

    def picture(self, reference: str | None) -> str | None:
        """The same for a picture: templates ("{width}") and placeholders of lazy loaders are none."""
        url = self(reference)
        if url is None or "{" in url or _PLACEHOLDER.search(url) or (reference or "").lstrip().startswith("#"):
            return None
        return url

    def lazy(self, attribute: str, value: str | None) -> str | None:
        """The same for a lazy loader's attribute, whose value may be something else ("true", a colour, a page)."""
        if not value or not ("/" in value or "." in value):
            return None
        if attribute in AMBIGUOUS and not is_image_file(value.strip()):
            return None
        return self.picture(value)


def srcset_by_size(srcset: str) -> list[str]:
    """The candidates of a srcset, the largest width or density first, equals in order (HTML standard, 4.8.4.3.8)."""
    found: list[tuple[float, str]] = []
    rest = srcset[: 4 * MAX_URL_CHARS].strip()
    while rest := rest.lstrip(" \t\n\r\f,"):
        parts = rest.split(None, 1)
        url, rest = parts[0], parts[1] if len(parts) > 1 else ""
        size = 1.0
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            descriptor, _, rest = rest.partition(",")
            size = _descriptor(descriptor)
        if url:
            found.append((size, url))
    return [url for _, url in sorted(found, key=lambda pair: -pair[0])]


def largest_of_srcset(srcset: str) -> str | None:
    """The candidate with the largest width or density; the first among equals."""
    return next(iter(srcset_by_size(srcset)), None)


def _descriptor(text: str) -> float:
    """Of "640w", "2x" or "640w 480h" the width or density; 1 where there is none."""
    for word in text.split():
        if word[-1:] in "wx":
            try:
                size = float(word[:-1])
            except ValueError:
                return 1.0
            return size if size == size else 1.0  # "nanw" would sort anywhere
    return 1.0


def css_backgrounds(style: str) -> Iterator[str]:
    """Addresses of `background` and `background-image` in the text of a style attribute, unescaped."""
    for match in _BACKGROUND.finditer(style[: 4 * MAX_URL_CHARS]):
        yield _CSS_ESCAPE.sub(_unescaped, match[1] or match[2] or match[3] or "")


def _unescaped(match: re.Match[str]) -> str:
    code = int(match[1], 16) if match[1] else 0
    return (chr(code) if 0 < code < 0x110000 else "") if match[1] else match[2]


def is_image_file(reference: str) -> bool:
    """Whether a path ends like an image file; "File:Ada.jpg" is a wiki's page about one."""
    if not _IMAGE_ENDING.search(reference) or len(reference) > MAX_URL_CHARS:
        return False
    path = reference.split("?", 1)[0].split("#", 1)[0]
    return path.lower().endswith(IMAGE_ENDINGS) and ":" not in path.rsplit("/", 1)[-1]
