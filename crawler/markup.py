"""HTML bytes -> text that a parser can take: the right encoding, and no markup that costs more than it says.

A tree builder's time grows with the depth of open elements, with the square of one element's attributes, and its
memory with formatting elements that are never closed (each block opens them all again: 22 kB can make a gigabyte).
So a page is read up to where it oversteps the bounds below.
"""

from __future__ import annotations

import re
from collections import Counter

MAX_NESTING = 2000  # browsers stop at some 500
MAX_ATTRIBUTES = 1000  # of one element
MAX_DEPTH_SUM = 200_000_000  # depth summed over all tags: about a second of the parser's time
MAX_REOPENED = 500_000  # formatting elements that may have to be opened again
_BLOCK_TAGS = 256
_WINDOW_CHARS = 16_384
_MAX_SKIPPED_TAGS = 20_000  # in scripts, styles and comments, which may only pretend to be such

# Elements without content, and those that the next of their kind closes.
_NEVER_DEEP = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
    | {"p", "li", "dt", "dd", "option", "tr", "td", "th", "tbody", "thead", "tfoot"}
)
_FORMATTING = frozenset({"b", "big", "code", "em", "font", "i", "s", "small", "strike", "strong", "tt", "u"})

# A tag with its attributes, quotes heeded, each character read once. Group 1 is empty for a tag that does not end
# after 300 attributes (or at all): that one is looked at closely.
_VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^\s<>"'][^\s<>]*+)"""
_NAME = r"[a-zA-Z][^\s/<>]{0,99}+"
_ATTRIBUTES = rf"(?:[^<=>]*+=\s*+{_VALUE}?+){{0,300}}+[^<=>]{{0,2000}}+"
_TAG = re.compile(rf"<(?:(/?{_NAME})(?:>|{_ATTRIBUTES}>)|[a-zA-Z])")
_UNENDED = re.compile(rf"<{_NAME}(?={_ATTRIBUTES}(?!>))")
_ATTRIBUTE = re.compile(r"""[\s/]*+[^\s/>][^\s/=>]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>"'][^\s>]*+)?+)?+""")
# A formatting element with attributes: of those that are equal a parser keeps three.
_STYLED = re.compile(
    "<(?:[bisuBISU]|"
    + "|".join("".join(f"[{c}{c.upper()}]" for c in name) for name in sorted(_FORMATTING) if len(name) > 1)
    + r")[\s/]"
)
# The end of a tag, seen from any place within one: between attributes, in a word, before a value, in quotes. A quoted
# value without end in sight is one attribute.
_REST = rf"(?:{_ATTRIBUTE.pattern}){{0,1000}}+[\s/]*+>"
_TAG_ENDS = tuple(
    re.compile(start)
    for start in (
        _REST,
        rf"[^\s>]*+{_REST}",
        rf"\s*+{_VALUE}{_REST}|\s*+>",
        rf"[^\"]*+(?:\Z|\"{_REST})",
        rf"[^']*+(?:\Z|'{_REST})",
    )
)
_RAW = tuple(
    (re.compile(start, re.I), re.compile(end, re.I))
    for start, end in (("<!--", "-->"), ("<script", "</script"), ("<style", "</style"))
)

_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def decode_html(html: bytes, content_type: str = "") -> str:
    """Bytes -> text: byte-order mark, then the header's charset, then UTF-8 where it fits, then <meta> or detection.

    Bytes beyond ASCII that are valid UTF-8 are hardly ever anything else, whatever <meta> says.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    for mark, encoding in _MARKS:
        if html.startswith(mark):
            return html[len(mark) :].decode(encoding, "replace")
    _, _, charset = content_type.lower().partition("charset=")
    named = map_encoding_to_html5(charset.split(";")[0].strip(" \"'"), fallback_utf8=False) if charset else None
    if named is None or named == "utf-8":
        try:
            return html.decode("utf-8")
        except UnicodeDecodeError:
            named = named or detect_encoding(html, from_html_meta=True) or "utf-8"
    text: str = bytes_to_str(html, named, errors="replace")
    return text


def cut_where_too_deep(html: str) -> str:
    """`html` up to where it oversteps one of this module's bounds; all of it for every page meant to be read."""
    if _is_flat(html):
        return html if _has_short_tags(html) else _cut_where_too_many_attributes(html)
    names = _TAG.findall(html)
    if "" in names:
        kept = _cut_where_too_many_attributes(html)
        names = [name for name in (names if kept is html else _TAG.findall(kept)) if name]
        html = kept
    if _surely_within(names, len(names) or 1) or _surely_within(names, _BLOCK_TAGS) or _first_beyond(names) is None:
        return html
    shown = _without_raw_text(html)  # a script's markup is rarely balanced
    shown_names = [name for name in _TAG.findall(shown) if name]
    if len(names) - len(shown_names) <= _MAX_SKIPPED_TAGS:
        if _first_beyond(shown_names) is None:
            return html
        html, names = shown, shown_names
    last = _first_beyond(names)
    starts = (match.start() for match in _TAG.finditer(html) if match[1])
    return html[: next(start for nth, start in enumerate(starts) if nth == last)]


def _is_flat(html: str) -> bool:
    """Whether no bound on nesting can be overstepped by much: few tags, and few formatting elements with attributes.

    So is nearly every page, and this needs no look at every tag.
    """
    tags = html.count("<")
    if tags > 2 * MAX_NESTING:
        return False
    return tags * (len(_STYLED.findall(html)) + 3 * len(_FORMATTING)) <= MAX_REOPENED


def _has_short_tags(html: str) -> bool:
    """Whether no tag is over two windows long, told from windows: each is taken to lie within one tag, whichever part
    of it it begins with, and must show that tag's end."""
    windows = range(_WINDOW_CHARS, len(html) - _WINDOW_CHARS, _WINDOW_CHARS)
    return all(pattern.match(html, w, w + _WINDOW_CHARS) for w in windows for pattern in _TAG_ENDS)


def _without_raw_text(html: str) -> str:
    """`html` without comments, scripts and styles, where they end; linear in its length."""
    for start, end in _RAW:
        parts, position = [], 0
        while (opened := start.search(html, position)) and (closed := end.search(html, opened.end())):
            parts.append(html[position : opened.start()])
            position = closed.end()
        html = "".join([*parts, html[position:]])
    return html


def _surely_within(names: list[str], block: int) -> bool:
    """Whether no bound can be overstepped, told from counts per block of tags: true for nearly every page."""
    open_elements: Counter[str] = Counter()
    depth_sum = reopened = 0
    for start in range(0, len(names), block):
        started: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        for name, count in Counter(names[start : start + block]).items():
            if name[0] == "/":
                ended[name[1:].lower()] += count
            elif (bare := name.lower()) not in _NEVER_DEEP:
                started[bare] += count
        deepest = open_elements.total() + started.total()
        depth_sum += deepest * block
        reopened += sum(open_elements[name] + started[name] for name in _FORMATTING) * block
        if deepest > MAX_NESTING or depth_sum > MAX_DEPTH_SUM or reopened > MAX_REOPENED:
            return False
        open_elements = (open_elements - ended) + started  # as if a block's end tags came first
    return True


def _first_beyond(names: list[str]) -> int | None:
    """Position of the first tag that oversteps a bound; None where none does.

    An end tag closes one open element of its own name: what it closes besides is left out, which overrates the depth
    of sloppy pages and never underrates it by more than half.
    """
    open_elements: dict[str, int] = {}
    depth = depth_sum = formatting = reopened = 0
    for nth, name in enumerate(names):
        name = name.lower()
        if name[0] == "/":
            name = name[1:]
            count = open_elements.get(name, 0)
            if count:
                open_elements[name] = count - 1
                depth -= 1
                formatting -= name in _FORMATTING
        elif name not in _NEVER_DEEP:
            open_elements[name] = open_elements.get(name, 0) + 1
            depth += 1
            formatting += name in _FORMATTING
        depth_sum += depth
        reopened += formatting
        if depth > MAX_NESTING or depth_sum > MAX_DEPTH_SUM or reopened > MAX_REOPENED:
            return nth
    return None


def _cut_where_too_many_attributes(html: str) -> str:
    """`html` up to the first start tag with more than MAX_ATTRIBUTES attributes."""
    beyond = 0
    for tag in _UNENDED.finditer(html):
        if tag.start() < beyond:
            continue
        beyond = tag.end()
        for _ in range(MAX_ATTRIBUTES):
            attribute = _ATTRIBUTE.match(html, beyond)
            if attribute is None:
                break
            beyond = attribute.end()
        else:
            return html[: tag.start()]
    return html
