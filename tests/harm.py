"""How much harm tests do: little in `make test`, all of it in `make test-slow`, which counts it."""

from __future__ import annotations

from collections import Counter

import pytest

__all__ = ["Harm", "add_option", "show"]

_DONE = pytest.StashKey[Counter[str]]()


class Harm:
    """Tells a test how often to do harm, and counts what it has done."""

    def __init__(self, config: pytest.Config) -> None:
        self._all = bool(config.getoption("all_harm"))
        self._done = config.stash.setdefault(_DONE, Counter())

    def times(self, few: int, many: int) -> int:
        """Return how often to do it: `many` in `make test-slow`, else `few`."""
        return many if self._all else few

    def done(self, what: str, count: int = 1) -> None:
        """Count harm that was done, and was shown to have lost nothing, such as "kills"."""
        self._done[what] += count


def add_option(parser: pytest.Parser) -> None:
    """Add the option by which `make test-slow` asks for all of it."""
    parser.addoption(
        "--all-harm", action="store_true", help="do as much harm as `make test-slow` does"
    )


def show(terminal: pytest.TerminalReporter, config: pytest.Config, *, passed: bool) -> None:
    """Print what was done, and whether anything was lost."""
    done = config.stash.get(_DONE, Counter())
    if done:
        lost = "nothing was lost" if passed else "see the failures above for what was lost"
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(done.items()))
        terminal.write_line(f"harm done: {counts}; {lost}")
