"""The exit code of a command that goes on after an error."""

from __future__ import annotations

from imgsearch.cli.output import complain
from imgsearch.errors import InputError

__all__ = ["Outcome"]

NOTHING_FOUND = 1


class Outcome:
    """What a command ends with; an input that was refused weighs more than nothing found."""

    def __init__(self) -> None:
        self.code = 0

    def refuse(self, error: InputError) -> None:
        """Report an input that cannot be used, while the others are."""
        complain(str(error))
        self.code = error.exit_code

    def miss(self, message: str) -> None:
        """Report that nothing was found."""
        complain(message)
        self.code = self.code or NOTHING_FOUND
