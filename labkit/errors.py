"""The one exception that a person is meant to read."""

from __future__ import annotations


class LabError(Exception):
    """Something the person can mend: one sentence of what is wrong, one of what to do.

    The command line prints it without a traceback and ends with exit code 2; a page shows it in red.
    """
