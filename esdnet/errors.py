"""What ends a command early, and how its command line reports it: one line on stderr, exit status 2 or 1."""

from __future__ import annotations

import sys
from collections.abc import Callable

INTERRUPTED = 130  # the exit status of a command that Ctrl-C ended, as shells have it


class CheckFailed(Exception):
    """What was made does not compute what it must, so it is not kept: the message is one line that says where."""


class BackendDied(Exception):
    """Software that computes for us failed in the middle of its work: one line; the cause, if any, has the rest."""


class UserError(Exception):
    """A mistake in what the user gave: the message is one line that says what was found, expected, and what to do."""


def report_user_errors(run: Callable[[], int]) -> int:
    """Run a command body and return its exit status.

    One clear line on stderr and status 2 for a UserError, 1 for a CheckFailed or BackendDied, 130 for Ctrl-C.
    """
    try:
        return run()
    except CheckFailed as failure:
        print(f"check failed, nothing was written: {failure}", file=sys.stderr)
        return 1
    except BackendDied as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
