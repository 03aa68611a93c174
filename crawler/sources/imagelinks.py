"""Image links of pages -> columns of addresses and captions, fast: most links are clean already and need no parsing.

Results are those of `crawler.references.Resolver.picture` and `crawler.extract.collapse` (a property test holds them to
it), at a fraction of their time: a WAT file has 400,000 image links. For the same reason there is no object per picture
for the garbage collector to follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from crawler import references
from crawler.extract import collapse
from warehouse.schema import CaptionKind

_ALT, _TITLE = CaptionKind.ALT.value, CaptionKind.TITLE.value
_SRC = "IMG@/src"
_LAZY_PATHS = {f"IMG@/{name}": name for name in references.LAZY_SOURCES}
_MAX_CLEAN_CHARS = 2000
_MAX_TIDY_CHARS = 500
_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~%+=@!,$&()*.:/-"
_SAFE_BYTES = f"{_SAFE}?".encode()
_PATH = f"[{re.escape(_SAFE)}]*"
_ORIGIN = re.compile(r"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_PLACE = re.compile(rf"(https?:)(//[a-z0-9-]+(?:\.[a-z0-9-]+)+)(/{_PATH})?")
# Addresses that need no parsing at all, and of those what is none of a picture, for Arrow (RE2).
_PLAIN = rf"^https?://[a-z0-9-]+(\.[a-z0-9-]+)+/[{re.escape(_SAFE)}]*(\?[{re.escape(_SAFE)}]+)?$"
_NO_PICTURE = rf"/\.|(?i:{references.PLACEHOLDER})"
_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
# File names that may be placeholders of lazy loaders ("blank.gif"): those are short.
_MAX_NAME_CHARS = 20


class ImageLink(msgspec.Struct, gc=False):
    """A link as WAT files write it; texts are "" where there are none."""

    path: str = ""
    url: str = ""
    alt: str = ""
    title: str = ""


@dataclass
class LinkRows:
    """Pictures as columns: `counts[i]` texts belong to `images[i]`, in rank order, in `kinds` and `texts`."""

    images: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def plain_pictures(urls: Iterable[str]) -> set[str]:
    """Those that are addresses of pictures as they stand. One pass over many takes a third of the time of one each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = [url for url in urls if url[:4] == "http" and url.isascii() and len(url) <= _MAX_CLEAN_CHARS]
    found = pa.array(list(dict.fromkeys(asked)), pa.string())
    plain = pc.and_not(pc.match_substring_regex(found, _PLAIN), pc.match_substring_regex(found, _NO_PICTURE))
    return set(found.filter(plain).to_pylist())


def link_rows(links: Iterable[ImageLink], base: str, plain: Set[str] = frozenset()) -> LinkRows:
    """One row per address, in page order; texts of a second link to it are added. `plain`: see `plain_pictures`."""
    resolve = PictureResolver(base)
    places: dict[str, int] = {}  # of references and addresses in `images`; -1: of no picture
    images: list[str] = []
    first: list[ImageLink] = []
    more: dict[int, list[ImageLink]] = {}  # further links to the same
    for link in links:
        reference = link.url
        if reference not in places:
            if link.path != _SRC and not resolve.is_lazy(link.path, reference):
                continue
            address = reference if reference in plain else resolve(reference)
            if address is None:
                places[reference] = -1
                continue
            place = places[reference] = places.setdefault(address, len(images))
            if place == len(images):
                images.append(address)
                first.append(link)
                continue
        place = places[reference]
        if place >= 0 and (link.alt != first[place].alt or link.title != first[place].title):
            more.setdefault(place, []).append(link)
    return _rows(images, first, more)


def _rows(images: list[str], first: list[ImageLink], more: dict[int, list[ImageLink]]) -> LinkRows:
    """Alts first, then titles, each text once."""
    counts: list[int] = []
    kinds: list[str] = []
    texts: list[str] = []
    for place, link in enumerate(first):
        if link.title or place in more:
            same = [link, *more.get(place, ())]
            found = dict.fromkeys([tidy(x.alt) for x in same], _ALT)
            for x in same:
                found.setdefault(tidy(x.title), _TITLE)
            found.pop("", None)
            counts.append(len(found))
            kinds += found.values()
            texts += found
        elif link.alt and (text := tidy(link.alt)):
            counts.append(1)
            kinds.append(_ALT)
            texts.append(text)
        else:
            counts.append(0)
    return LinkRows(images, counts, kinds, texts)


def tidy(text: str) -> str:
    """`collapse`, without its work on texts that need none."""
    if len(text) < _MAX_TIDY_CHARS and text.isascii() and text.isprintable() and "  " not in text:
        return text.strip(" ")
    return collapse(text)


def is_clean(address: str) -> bool:
    """True only for addresses that `references.absolute` leaves as they are.

    They have no user, port, parameters, fragment, empty query, dot segment or odd character.
    """
    return _is_clean_after_origin(address) and _origin_of(address) != ""


def _is_clean_after_origin(address: str) -> bool:
    # Removing all safe bytes to see whether any is left takes a third of the time of a regular expression.
    if len(address) > _MAX_CLEAN_CHARS or not address.isascii() or address.encode().translate(None, _SAFE_BYTES):
        return False
    return "/." not in address and ("?" not in address or (address.count("?") == 1 and address[-1] != "?"))


def _origin_of(address: str) -> str:
    """A clean address's beginning, with the slash after the host; "" for what needs parsing."""
    end = address.find("/", 8)
    return address[: end + 1] if end > 0 and _ORIGIN.fullmatch(address, 0, end) else ""


class PictureResolver:
    """`references.Resolver(base).picture`, without parsing where nothing is to be done."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._slow: references.Resolver | None = None  # costs more than a clean page's links together
        self._place: tuple[str, str, str] | None = None
        self._origins: tuple[str, ...] = ()  # met on this page: most of its pictures share one

    def __call__(self, reference: str) -> str | None:
        """The absolute address of a picture, or None."""
        address = reference
        if reference[:4] != "http":
            if not reference or reference[:5] == "data:":
                return None
            address = self._joined(reference)
        if "#" in address:
            address = address.partition("#")[0]
        if not _is_clean_after_origin(address) or not (address.startswith(self._origins) or self._learn(address)):
            return self._picture(reference)
        # A clean address has one "?" at the most, hence two file names: before it, and at the end.
        if "/" in address[-_MAX_NAME_CHARS:] and _is_placeholder(address[address.rfind("/") :]):
            return None
        if "?" in address:
            path = address.partition("?")[0]
            if "/" in path[-_MAX_NAME_CHARS:] and _is_placeholder(path[path.rfind("/") :]):
                return None
        return address

    def _learn(self, address: str) -> bool:
        """Whether an address begins with an origin as clean ones do; it is known from then on."""
        origin = _origin_of(address)
        if origin:
            self._origins = (*self._origins[-7:], origin)
        return bool(origin)

    def is_lazy(self, path: str, value: str) -> bool:
        """Whether a link that is no src is a lazy loader's attribute with a picture's address in it."""
        name = _LAZY_PATHS.get(path)
        return name is not None and references.Resolver(self._base).lazy(name, value) is not None

    def _picture(self, reference: str) -> str | None:
        if self._slow is None:
            self._slow = references.Resolver(self._base)
        return self._slow.picture(reference)

    def _joined(self, reference: str) -> str:
        """A guess that is right where the result is clean."""
        scheme, origin, directory = self._place = self._place or _place_of(self._base)
        first = reference[:1]
        if first == "/":
            return (scheme if reference[1:2] == "/" else origin) + reference
        if first in _FIRST and directory and ":" not in reference and "//" not in reference:
            return directory + reference
        return ""


def _place_of(base: str) -> tuple[str, str, str]:
    """Scheme, origin and directory of a base, with the slash at its end; "" for what needs parsing."""
    place = _PLACE.match(base)
    ends_well = place is not None and base[place.end() : place.end() + 1] in {"", "?", "#"}
    if place is None or not (ends_well or place[3]):  # without a path, what follows is a port or part of the host
        return "", "", ""
    origin, path = place[1] + place[2], place[3] or ""
    directory = path[: path.rfind("/") + 1]
    plain = ends_well and directory and "//" not in directory and "/." not in directory
    return place[1], origin, origin + directory if plain else ""


@lru_cache(100_000)
def _is_placeholder(name: str) -> bool:
    return references.Resolver("https://host.example/").picture(f"https://host.example{name}") is None
