"""How much of each test is run: a part in `make test`, all of it in `make test-all`, more in
`make test-slow`, which does all the harm it can and counts it.

`--fast` is what `make test` asks for. A test with many parameters runs with a few of them, spread
from the first to the last (the marker `few` says how many); properties are tried with fewer
examples; commands and workers run in this process unless a test is marked `processes`; and what is
marked `whole` is left to `make test-all`. What is marked `heavy` is left to `make test-slow`.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings

__all__ = ["Harm", "add_options", "choose", "examples", "set_up", "show"]

PARAMETERS = 2  # that a test runs with in `make test`, unless it is marked `few`
EXAMPLES, FAST_EXAMPLES = 50, 10  # of a property, unless it asks for another number

_DONE = pytest.StashKey[Counter[str]]()


class Harm:
    """Tells a test how often to do harm, and counts what it has done."""

    def __init__(self, config: pytest.Config) -> None:
        self.fast = bool(config.getoption("fast"))
        self._all = bool(config.getoption("all_harm"))
        self._done = config.stash.setdefault(_DONE, Counter())

    def times(self, few: int, many: int, *, fast: int | None = None) -> int:
        """Return how often: `few`, but `fast` in `make test` and `many` in `make test-slow`."""
        if self._all:
            return many
        return few if fast is None or not self.fast else fast

    def done(self, what: str, count: int = 1) -> None:
        """Count harm that was done, and was shown to have lost nothing, such as "kills"."""
        self._done[what] += count


def add_options(parser: pytest.Parser) -> None:
    """Add the options by which `make test` asks for a part and `make test-slow` for all of it."""
    group = parser.getgroup("imgsearch")
    group.addoption("--fast", action="store_true", help="run the quick form of the tests")
    group.addoption(
        "--all-harm", action="store_true", help="do as much harm as `make test-slow` does"
    )


def set_up(config: pytest.Config) -> None:
    """Set how many examples of a property are tried."""
    for name, count in (("whole", EXAMPLES), ("fast", FAST_EXAMPLES)):
        settings.register_profile(name, derandomize=True, deadline=None, max_examples=count)
    settings.load_profile("fast" if config.getoption("fast") else "whole")


def examples(count: int) -> int:
    """Return `count`, or in `make test` as much less as properties have fewer examples there."""
    return -(-count * settings().max_examples // EXAMPLES)


def choose(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is left to `make test-slow`, and with `--fast` what is to `make test-all`."""
    if not config.getoption("all_harm"):
        _deselect(config, items, {item for item in items if item.get_closest_marker("heavy")})
    if not config.getoption("fast"):
        return
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = {
        item
        for family in families.values()
        for item in _spread([item for item in family if not item.get_closest_marker("whole")])
    }
    _deselect(config, items, {*items} - chosen)


def _deselect(config: pytest.Config, items: list[pytest.Item], left: set[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def _spread(family: list[pytest.Item]) -> list[pytest.Item]:
    """Return a few tests of a family, spread over it from the first to the last."""
    mark = family[0].get_closest_marker("few") if family else None
    most = int(mark.args[0]) if mark else PARAMETERS
    if len(family) <= most:
        return family
    if most == 1:
        return family[:1]
    return [family[round(n * (len(family) - 1) / (most - 1))] for n in range(most)]


def show(terminal: pytest.TerminalReporter, config: pytest.Config, *, passed: bool) -> None:
    """Print what was done, and whether anything was lost."""
    done = config.stash.get(_DONE, Counter())
    if done:
        lost = "nothing was lost" if passed else "see the failures above for what was lost"
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(done.items()))
        terminal.write_line(f"harm done: {counts}; {lost}")
