"""What all texts and addresses of a pair say about its content, and whether somebody has put it on a blocklist."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from warehouse import words
from warehouse.errors import InputError
from warehouse.parameters import RuleParameters

_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_blocklist(file: str) -> tuple[set[str], set[str], set[str]]:
    """Hosts, addresses and sha256 sums of a blocklist. Raises InputError where it cannot be read."""
    hosts: set[str] = set()
    addresses: set[str] = set()
    sums: set[str] = set()
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"blocklist {file} cannot be read ({error}): give a text file") from error
    for number, line in enumerate(lines, 1):
        entry = line.split("#", 1)[0].strip() if "://" not in line else line.strip()
        if not entry or entry.startswith("#"):
            continue
        if "://" in entry:
            addresses.add(entry)
        elif _SHA256.fullmatch(entry.lower()):
            sums.add(entry.lower())
        elif "." in entry and not re.search(r"[\s/]", entry):
            hosts.add(entry.lower().strip("."))
        else:
            raise InputError(f"blocklist {file}, line {number}: {entry[:80]!r} is no host, address or sha256")
    return hosts, addresses, sums


def judge_content(con: duckdb.DuckDBPyConnection, parameters: RuleParameters) -> None:
    """Temporary table `content(row_id, blocked, nsfw, minor)` over all pairs.

    Every caption candidate counts, not the chosen one alone, and so does the page's title, where the source gives it:
    what a better caption leaves out is still true.
    """
    hosts, addresses, sums = read_blocklist(parameters.blocklist) if parameters.blocklist else (set(), set(), set())
    hosts |= {host.lower().strip(".") for host in parameters.blocked_hosts}
    for name, entries in (("host", hosts), ("address", addresses), ("sum", sums)):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE blocked_{name} AS SELECT unnest(?::VARCHAR[]) AS entry", [[*entries]]
        )
    # An address says what its words say, without the separators.
    spoken = "regexp_replace(page_url || ' ' || image_url, '%[0-9A-Fa-f]{2}|[-_+/.=&?]', ' ', 'g')"
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE content AS
        WITH told AS (SELECT row_id, string_agg(text, ' | ' ORDER BY rank) AS texts FROM captions GROUP BY row_id),
        spoken AS (
            SELECT p.row_id, p.image_host, p.page_host, p.image_url, p.page_url, i.image_id,
                   coalesce(texts, '') || ' | ' || {spoken} AS said
            FROM pairs p LEFT JOIN told USING (row_id)
            LEFT JOIN (SELECT url_id, image_id FROM images) i ON i.url_id = p.url_id)
        SELECT row_id, {words.says_minor_sql("said")} AS minor,
               {words.says_nsfw_sql("said")} OR {words.is_nsfw_host_sql("image_host")}
                   OR {words.is_nsfw_host_sql("page_host")} AS nsfw,
               image_url IN (FROM blocked_address) OR page_url IN (FROM blocked_address)
                   OR coalesce(image_id IN (FROM blocked_sum), false)
                   OR {_on_blocked_host("image_host")} OR {_on_blocked_host("page_host")} AS blocked
        FROM spoken""")


def _on_blocked_host(host: str) -> str:
    """SQL predicate: the host or one that it belongs to is blocked."""
    name = f"regexp_extract({host}, '^[a-z]+://([^:/]+)', 1)"
    return f"EXISTS (SELECT 1 FROM blocked_host b WHERE {name} = b.entry OR ends_with({name}, '.' || b.entry))"
