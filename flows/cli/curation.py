"""Commands about curation: what a rule costs before it is applied."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, At, Root


def whatif(
    rule: Annotated[str, typer.Option(help="The parameter to change, such as min_face_px (or face_px) or languages.")],
    to: Annotated[str, typer.Option("--to", help="Its new value.")],
    since: Annotated[
        str | None, typer.Option("--from", help="The value to compare with (default: the release's).")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Group by host, source, detector, format, caption_kind, brightness, pose, image_type or face_size."
        ),
    ] = "host",
    top: Annotated[int, typer.Option(min=1, help="Show this many groups.")] = 20,
    root: Root = DEFAULT_ROOT,
    at: At = None,
) -> None:
    """What a change of a rule would lose, as a whole and by group. Nothing is applied.

    Example: gptface whatif --rule face_px --from 64 --to 96 --by pose
    """
    import warehouse
    from flows.cli.tables import print_what_if
    from warehouse.parameters import parameter_name
    from warehouse.whatif import release_rules, what_if

    with warehouse.connect(root, at=at) as con:
        now = release_rules(con, at)
    before = now.changed(rule, since) if since is not None else now
    after, name = before.changed(rule, to), parameter_name(rule)
    print_what_if(what_if(root, before, after, by, at), name, (getattr(before, name), getattr(after, name)), by, top)
