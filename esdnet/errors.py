"""What goes wrong through the user's input, and how a command line reports it: one line on stderr, exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in what the user gave: the message is one line that says what was found, expected, and what to do."""


def report_user_errors(run: Callable[[], int]) -> int:
    """Run a command body and return its exit status; a UserError becomes one clear line on stderr and status 2."""
    try:
        return run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
