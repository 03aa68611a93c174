"""The `gptface` command line. Commands live in the modules of this folder; each imports what is heavy when it runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: run the command; a user's mistake is one line and exit code 2, `--debug` shows the traceback."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    from flows.cli.app import app

    try:
        app()
    except KeyboardInterrupt:
        from flows.cli.ui import fail

        fail("stopped; start the same command again to go on where it was", code=130)
    except (ValueError, OSError, RuntimeError) as error:
        from flows.cli.ui import describe, fail, is_user_error

        if debug or not is_user_error(error):
            raise
        from rich.markup import escape

        fail(escape(describe(error)), code=getattr(error, "exit_code", 2))
