"""Captions: e-mail addresses, telephone numbers and links removed, boilerplate known, words counted. All of it SQL.

The patterns are RE2 (no look-around), so a boundary is captured and put back. They lean to removal: a caption that
loses an order number costs little, one that keeps a telephone number costs somebody's peace.
"""

from __future__ import annotations

import duckdb

from warehouse.lake import quoted

_EMAIL = r"(?i)(?:mailto:)?[\p{L}\p{N}._%+'-]+\s?[@＠]\s?[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+"
_EMAIL_SPELLED = (
    r"(?i)[\p{L}\p{N}._%+-]+\s*[\[({]\s*at\s*[\])}]\s*[\p{L}\p{N}.-]+"
    r"(?:\s*[\[({]\s*dot\s*[\])}]\s*[\p{L}\p{N}-]+)*"
)
_LINK = r"(?i)(?:https?://|\bwww\.)\S+"
# The forms a number comes in; `(^|[^\w])` is the left boundary that is put back. The digits between separators are
# counted by repetition: years, year ranges, ISO and European dates have too few, or no leading 0 or +.
_PHONES = (
    r"(^|[^\p{L}\p{N}])(?:tel|phone|fax|mobile|cell|call|tél|telefon)\s*[.:]?\s*:?\s*[+(]?\d(?:[\s().\-/–]{0,3}\d){4,16}",
    r"(^|[^\p{L}\p{N}])(?:\+|\(\+|00[\s.-]?[1-9])\s?\d?(?:[\s().\-/–]{0,3}\d){6,15}",
    r"(^|[^\p{L}\p{N}])(?:1[\s.-])?\(?\d{3}\)?[\s.\-–]{1,2}\d{3}[\s.\-–]\d{4}",
    r"(^|[^\p{L}\p{N}])\(?0(?:[\s()\-/–.]{0,2}\d){8,13}",
    r"(^|[^\p{L}\p{N}])\d{10,15}",
)
_UNSEEN = r"[\p{Cc}\p{Cf}\p{Co}]"  # control, format (zero width, direction overrides), private use

_WORDS = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
    r"|[^\P{L}\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+"
)

# The whole text, letters and digits only, lower case.
_BOILERPLATE_TEXTS = (
    "image",
    "photo",
    "picture",
    "photograph",
    "pic",
    "img",
    "thumbnail",
    "thumb",
    "logo",
    "icon",
    "avatar",
    "banner",
    "placeholder",
    "untitled",
    "unnamed",
    "spacer",
    "advertisement",
    "ad",
    "loading",
    "blank",
    "default",
    "none",
    "null",
    "undefined",
    "gallery",
    "slideshow",
    "slide",
    "close",
    "menu",
    "search",
    "share",
    "next",
    "previous",
    "more",
    "play",
    "video",
    "cover",
    "header",
    "footer",
    "background",
    "portrait",
    "profile",
)
_BOILERPLATE_PATTERNS = (
    r"\.(?:jpe?g|jfif|png|gif|webp|bmp|tiff?|svg|avif|heic)$",  # a file name, also with spaces
    r"^(?:[\w-]+\.)+(?:com|org|net|info|gov|edu|co|io)(?:[./]\S*)?$",  # an address without its scheme
    r"^(?:[\p{L}\p{N}&.'’-]+\s+){0,2}(?:logo|icon)$",
    r"^(?:logo|icon)\s+(?:of|for|du|de|von)\b",
    r"^(?:img|dsc|dscn|dscf|pxl|mvimg|screenshot|image|photo|picture|untitled)[\s_\-#]*\d[\d\s_\-.]*$",
    r"^(?:click|tap|press)\s+(?:here|to|on|for|the)\b",
    r"^(?:enlarge|zoom|view|open|see)\s+(?:the\s+)?(?:full\s?-?size|larger|image|photo|picture|gallery)\b",
    r"^(?:share|follow|like|pin|tweet)\s+(?:this|on|us|it)\b",
    r"^(?:no|missing)\s+(?:image|photo|picture|caption|description|alt(?:\s+text)?)\b",
    r"^(?:image|photo|picture|alt)\s+(?:description|text|caption|not\s+(?:available|found)|may\s+contain)\b",
    r"^(?:(?:author|user|profile|site|company|header|default)(?:'s)?\s+)+(?:image|photo|picture|avatar|logo|icon|pic)$",
    r"^(?:copyright|©|\(c\)|all\s+rights\s+reserved)",
    r"^(?:(?:photo|image|picture|credit)s?\s*(?:by|credit|courtesy)?\s*:?\s*)?(?:getty(?:\s+images)?|shutterstock|istock|alamy|ap|afp|reuters)\.?$",
    r"^(?:advertisement|sponsored(?:\s+content)?|cookie|subscribe|sign\s+(?:up|in)|log\s*in|read\s+more|learn\s+more)\b",
)


def _replaced(inner: str, pattern: str, by: str) -> str:
    return f"regexp_replace({inner}, {quoted(pattern)}, {quoted(by)}, 'g')"


def clean_sql(text: str) -> str:
    """SQL for the cleaned text: NFC, no unseen characters, no e-mail, telephone number or link, single spaces."""
    sql = _replaced(f"nfc_normalize({text})", r"[\p{Z}\s]+", " ")
    sql = _replaced(sql, _UNSEEN, "")
    for pattern in (_LINK, _EMAIL, _EMAIL_SPELLED):
        sql = _replaced(sql, pattern, " ")
    for pattern in _PHONES:
        sql = _replaced(sql, f"(?i){pattern}", r"\1 ")
    sql = _replaced(sql, r"\(\s*\)|\[\s*\]", " ")  # what a removed number leaves behind
    sql = _replaced(sql, r"\s+([,.;:!?])", r"\1")
    sql = _replaced(sql, r"([,;:])(?:\s*[,;:])+", r"\1")
    return f"trim({_replaced(sql, ' +', ' ')}, ' ,;:|-–—•·')"


def words_sql(text: str) -> str:
    """SQL for the number of words: runs of letters, or single characters in scripts written without spaces."""
    return f"len(regexp_extract_all({text}, {quoted(_WORDS)}))"


def boilerplate_sql(text: str) -> str:
    """SQL predicate: the text says nothing about this picture (file name, button, credit, 'image')."""
    bare = rf"trim(lower(regexp_replace({text}, '[^\p{{L}}]+', ' ', 'g')))"
    listed = ", ".join(quoted(word) for word in _BOILERPLATE_TEXTS)
    pattern = "(?i)" + "|".join(f"(?:{p})" for p in _BOILERPLATE_PATTERNS)
    return f"({bare} IN ({listed}) OR regexp_matches({text}, {quoted(pattern)}))"


def near_identical_sql(text: str) -> str:
    """SQL of what near-identical captions share: the letters, without case, digits, punctuation and spacing.

    Equality of that, not of shingles (MinHash): what pages make by the thousand differs in numbers and marks, and a
    reader of a decision can see why two captions counted as one.
    """
    return rf"trim(lower(regexp_replace({text}, '[^\p{{L}}\p{{M}}]+', ' ', 'g')))"


def caption_id_sql(clean: str) -> str:
    """SQL for the id (32 hex digits) of a cleaned text, whatever the rules then cut off it or replace in it."""
    return f"md5({clean})"


def _judged_sql(captions: str) -> str:
    """SELECT of all candidates in `captions`, cleaned (`clean` may be empty), with `boilerplate` and `words`."""
    return f"""
        SELECT *, {boilerplate_sql("clean")} AS boilerplate, {words_sql("clean")} AS words
        FROM (SELECT row_id, rank, kind, text, {clean_sql("text")} AS clean FROM {captions})"""


def candidates_select(captions: str, releases: str) -> str:
    """SELECT of every caption candidate with the reason why it is not used; null where it may be.

    `captions` and `releases` are tables or subqueries. The least number of words is that of the release looked at; a
    caption rule that is off by default (language, mention of a person) is the pair's decision, not told here. Reasons
    are literals of schema.Reason: importing it takes pyarrow along, which reading connections do without.
    """

    return f"""
        WITH rule AS (
            SELECT coalesce(regexp_extract(max_by(rules, release), '"min_caption_words":\\s*(\\d+)', 1), '') AS least
            FROM {releases} WHERE release <= coalesce(getvariable('release'), release))
        SELECT row_id, rank, kind, text, clean AS caption, words,
               CASE WHEN clean = '' OR kind = 'page_title' THEN 'no_caption'
                    WHEN boilerplate THEN 'caption_boilerplate'
                    WHEN words < coalesce(try_cast(least AS INTEGER), 1) THEN 'caption_too_short'
               END AS reason
        FROM ({_judged_sql(captions)}), rule"""


def choose_captions(con: duckdb.DuckDBPyConnection, min_words: int, max_chars: int) -> None:
    """Temporary table `chosen_captions`: per row_id the caption to use, with `boilerplate` and `words` for the rules.

    `clean` is the whole text, `caption_id` its id. The extractor's rank decides among the texts that pass; where none
    does, the one that comes nearest is shown, so that the reason says what was wrong with it. A text longer than
    `max_chars` is cut at a word. The title of a page is about the page, not about this picture: it is never chosen.
    """
    cut = f"""CASE WHEN length(clean) <= {max_chars} THEN clean
              ELSE regexp_replace(left(clean, {max_chars}), '\\s+\\S*$', '') END"""
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE chosen_captions AS
        SELECT row_id, rank, kind, {cut} AS caption, boilerplate, words, clean, {caption_id_sql("clean")} AS caption_id
        FROM ({_judged_sql("captions")}) WHERE clean <> '' AND kind <> 'page_title'
        QUALIFY row_number() OVER (
            PARTITION BY row_id ORDER BY boilerplate, words < {min_words}, rank, kind, clean) = 1""")
