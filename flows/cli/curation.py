"""Commands about curation: what a rule costs before it is applied."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, At, Root


def whatif(
    rule: Annotated[str, typer.Option(help="The parameter to change, such as face_px or languages.")],
    to: Annotated[str, typer.Option("--to", help="Its new value.")],
    since: Annotated[
        str | None, typer.Option("--from", help="The value to compare with (default: the release's).")
    ] = None,
    by: Annotated[str, typer.Option(help="Group by host, source, detector, format, caption_kind, pose, ...")] = "host",
    top: Annotated[int, typer.Option(min=1, help="Show this many groups.")] = 20,
    root: Root = DEFAULT_ROOT,
    at: At = None,
) -> None:
    """What a change of a rule would lose, as a whole and by group. Nothing is applied.

    Example: gptface whatif --rule face_px --from 64 --to 96 --by pose
    """
    import warehouse
    from flows.cli.tables import print_what_if
    from warehouse.whatif import changed_rules, release_rules, what_if

    with warehouse.connect(root, at=at) as con:
        now = release_rules(con, at)
    before = changed_rules(now, rule, since) if since is not None else now
    print_what_if(what_if(root, before, changed_rules(before, rule, to), by, at), by, top)
