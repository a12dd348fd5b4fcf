"""The command line: arguments, output, exit codes; no logic.

common     what every command takes and how it ends
commands   the commands
run        the flags of `run`, its live display and its summary
show       results as text for a person

Heavy modules are imported by the commands that use them, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys

from engine.errors import EXIT_OK, EXIT_RETRY


def main() -> None:
    """The command `promptferry`."""
    from engine.cli.commands import app

    try:
        app()
    except BrokenPipeError:  # `promptferry ids | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_OK)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_RETRY)
