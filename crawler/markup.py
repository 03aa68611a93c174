"""HTML bytes -> text that a parser can take: the right encoding, no endless nesting."""

from __future__ import annotations

import re

MAX_NESTING = 2000  # browsers stop at some 500
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements without content, and those that the next of their kind closes.
_NEVER_DEEP = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
    | {"p", "li", "dt", "dd", "option", "tr", "td", "th", "tbody", "thead", "tfoot"}
)


def decode_html(html: bytes, content_type: str = "") -> str:
    """Bytes -> text: byte-order mark, then the header's charset, then UTF-8 where it fits, then <meta> or detection.

    Bytes beyond ASCII that are valid UTF-8 are hardly ever anything else, whatever <meta> says.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if html.startswith(mark):
            return html[len(mark) :].decode(encoding, "replace")
    _, _, charset = content_type.lower().partition("charset=")
    named = map_encoding_to_html5(charset.split(";")[0].strip(" \"'"), fallback_utf8=False) if charset else None
    if named is None:
        try:
            return html.decode("utf-8")
        except UnicodeDecodeError:
            named = detect_encoding(html, from_html_meta=True) or "utf-8"
    text: str = bytes_to_str(html, named, errors="replace")
    return text


def cut_where_too_deep(html: str) -> str:
    """`html` up to where over MAX_NESTING elements are open: the parser's time grows with the square of the depth."""
    depth = 0
    for tag in _TAG.finditer(html):
        if tag[2].lower() not in _NEVER_DEEP:
            depth = max(0, depth - 1) if tag[1] else depth + 1
            if depth > MAX_NESTING:
                return html[: tag.start()]
    return html
