"""The one exception that a person is meant to read."""

from __future__ import annotations


class LabError(Exception):
    """Something the person can mend: one sentence of what is wrong, one of what to do.

    The command line prints it without a traceback and ends with exit code 2; a page shows it in red.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in a page: the sentence in red, and no traceback. The cell has failed all the same."""
        return [f"\x1b[31m{self}\x1b[0m"]
