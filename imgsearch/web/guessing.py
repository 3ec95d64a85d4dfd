"""Slow down clients that guess the token without refusing those that know it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from imgsearch.errors import PicklableError
from imgsearch.web.remembering import Remembered

__all__ = ["Guesses", "TooManyGuessesError"]

MOST_WAIT = 5.0  # seconds that somebody is kept waiting for a turn
_PEERS = 10_000  # that are remembered


class TooManyGuessesError(PicklableError):
    """Report that too many tokens wait to be looked at; `seconds` from now is a better time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


class Guesses:
    """Looks at tokens, of each peer at its own pace.

    A peer may be wrong `burst` times; from then on its tokens take turns, one in `seconds`. Each
    turn without a wrong guess gives one of the burst back. A right token costs nothing.
    """

    def __init__(self, burst: int, seconds: float) -> None:
        self._allowance = burst * seconds
        self._seconds = seconds
        self._paid: Remembered[str, float] = Remembered(_PEERS)  # when all guesses are paid for

    async def look(self, peer: str, is_right: Callable[[], bool]) -> bool:
        """Return what `is_right` says, once it is the peer's turn.

        Raises:
            TooManyGuessesError: Too many others of this peer wait.
        """
        clock = asyncio.get_running_loop().time
        wait = self._debt(peer, clock()) - self._allowance
        if wait > MOST_WAIT:
            raise TooManyGuessesError(wait)
        if wait < 0:
            right = is_right()
            if not right:
                self._charge(peer, clock(), self._seconds)
            return right
        self._charge(peer, clock(), self._seconds)  # a turn, which others have to wait for
        await asyncio.sleep(wait)
        right = is_right()
        if right:
            self._charge(peer, clock(), -self._seconds)
        return right

    def _debt(self, peer: str, now: float) -> float:
        """Return the seconds until all of a peer's guesses are paid for."""
        return max(0.0, (self._paid.get(peer) or now) - now)

    def _charge(self, peer: str, now: float, seconds: float) -> None:
        self._paid.put(peer, now + max(0.0, self._debt(peer, now) + seconds))
