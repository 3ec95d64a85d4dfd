"""Slow down clients that guess the token without refusing those that know it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from imgsearch.errors import PicklableError
from imgsearch.web.remembering import Remembered

__all__ = ["Guesses", "TooManyGuessesError"]

MOST_WAIT = 5.0  # seconds that a client may wait for its turn
_PEERS = 10_000  # peers to remember


class TooManyGuessesError(PicklableError):
    """A queue of tokens that is too long; the client may try again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


class Guesses:
    """A rate limit on wrong tokens, applied to each peer separately.

    A peer may be wrong `burst` times; from then on, one of its tokens is checked every `seconds`.
    Each such interval without a wrong guess restores one guess of the burst. A correct token
    costs nothing.
    """

    def __init__(self, burst: int, seconds: float) -> None:
        self._allowance = burst * seconds
        self._seconds = seconds
        self._paid: Remembered[str, float] = Remembered(_PEERS)  # when all guesses are paid off

    async def look(self, peer: str, is_right: Callable[[], bool]) -> bool:
        """Return the result of `is_right`, once it is the peer's turn.

        Raises:
            TooManyGuessesError: If too many other tokens of this peer are waiting.
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
        self._charge(peer, clock(), self._seconds)  # a turn, which later guesses have to wait for
        await asyncio.sleep(wait)
        right = is_right()
        if right:
            self._charge(peer, clock(), -self._seconds)
        return right

    def _debt(self, peer: str, now: float) -> float:
        """Return the seconds until all of a peer's guesses are paid off."""
        return max(0.0, (self._paid.get(peer) or now) - now)

    def _charge(self, peer: str, now: float, seconds: float) -> None:
        self._paid.put(peer, now + max(0.0, self._debt(peer, now) + seconds))
