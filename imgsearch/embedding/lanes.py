"""Shared decoders: a quick lane for most images and a slow lane for demanding ones.

Every image is tried in the quick lane first, where it may take little memory and little time.
Images that need more go to the slow lane, so that ordinary images never wait for them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from imgsearch.embedding.decoder import Allowance, BeyondError, Decoder
from imgsearch.errors import ImageError, PicklableError
from imgsearch.images.limits import LIMITS, Limits

__all__ = ["FullError", "Lane", "Rules", "Turn", "decoders", "too_much"]

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The limits of a lane.

    Attributes:
        places: Number of images that are examined at once.
        bytes: Maximum memory for the pixels of all of them together, in bytes.
        most: Maximum memory for the pixels of one image, in bytes.
        seconds: Maximum computing time for one image.
        patience: Maximum elapsed time for one image, in seconds.
        waiting: Number of images that may wait.
        nice: Increment of the niceness of the workers.
    """

    places: int
    bytes: int
    most: int
    seconds: float
    patience: float
    waiting: int
    nice: int = 0


class FullError(PicklableError):
    """Too many images are waiting already."""


@dataclass(slots=True, eq=False)
class Turn:
    """A place in a lane, or in the queue for one; `decoder` resolves when its turn comes."""

    bytes: int
    peer: str
    decoder: Future[Decoder] = field(default_factory=Future)
    held: Decoder | None = None


class Lane:
    """A context manager with decoders for as many images at once as there are places.

    Waiting images are served in turns: first one image of each peer, then the next of each.
    Any thread may call the methods.
    """

    def __init__(self, rules: Rules) -> None:
        """Set up the lane without starting a worker."""
        self.rules = rules
        self._free = [self._decoder() for _ in range(rules.places)]
        self._all = list(self._free)
        self._left = rules.bytes
        self._count = 0
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._lock = threading.RLock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Start the workers without waiting until they are ready."""
        for decoder in self._all:
            decoder.warm_up()

    def enter(self, bytes_: int, peer: str = "") -> Turn:
        """Join the queue for a place, which must be given back with `leave` in any case.

        Args:
            bytes_: Maximum memory for the image in bytes, capped at `rules.most`.
            peer: Name of the client that sends the image.

        Raises:
            FullError: If too many images are waiting.
        """
        turn = Turn(min(bytes_, self.rules.most), peer)
        with self._lock:
            if self._closed or self._count >= self.rules.waiting + len(self._free):
                raise FullError
            self._waiting.setdefault(peer, deque()).append(turn)
            self._count += 1
            self._hand_out()
        return turn

    def leave(self, turn: Turn) -> None:
        """Give a place back or leave the queue; a second call is harmless."""
        with self._lock:
            held, turn.held = turn.held, None
            if held is not None:
                if self._closed:
                    held.drop()
                self._free.append(held)
                self._left += turn.bytes
            elif turn.decoder.cancel():
                self._withdraw(turn)
            self._hand_out()

    def cancel(self, turn: Turn) -> None:
        """Give up the current image and kill its worker; the place must still be left."""
        with self._lock:
            if turn.held is not None:
                turn.held.cancel()

    def close(self) -> None:
        """End all workers, even busy ones, and accept no more images."""
        with self._lock:
            self._closed = True
            for decoder in self._all:
                decoder.close()
            for decoder in self._free:
                decoder.drop()
            for turns in self._waiting.values():
                for turn in turns:
                    turn.decoder.cancel()
            self._waiting.clear()
            self._count = 0

    @contextmanager
    def decoder(self, peer: str = "") -> Iterator[Decoder]:
        """Hold a place, once one is free, with all that the lane allows for one image.

        Raises:
            ImageError: If an image takes more than that (`limited`).
        """
        turn = self.enter(self.rules.most, peer)
        try:
            yield turn.decoder.result()
        except BeyondError as beyond:
            raise too_much("image", beyond, self.rules) from beyond
        finally:
            self.leave(turn)

    def _decoder(self) -> Decoder:
        return Decoder(self._allowance(self.rules.most), self.rules.nice)

    def _allowance(self, bytes_: int) -> Allowance:
        return Allowance(bytes=bytes_, seconds=self.rules.seconds, patience=self.rules.patience)

    def _withdraw(self, turn: Turn) -> None:
        turns = self._waiting.get(turn.peer)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self._count -= 1
            if not turns:
                del self._waiting[turn.peer]

    def _hand_out(self) -> None:
        """Give free places to the next in the queue, as long as there is memory for them."""
        while self._free and self._waiting and not self._closed:
            peer, turns = next(iter(self._waiting.items()))
            turn = turns[0]
            if turn.bytes > self._left:
                return
            self._withdraw(turn)
            if peer in self._waiting:
                self._waiting.move_to_end(peer)
            if not turn.decoder.set_running_or_notify_cancel():
                continue
            turn.held = self._free.pop()
            turn.held.begin(self._allowance(turn.bytes))
            self._left -= turn.bytes
            turn.decoder.set_result(turn.held)


def too_much(name: str, beyond: BeyondError, rules: Rules) -> ImageError:
    """Return the error to report for an image that takes more than a lane allows."""
    if beyond.needs is None:
        return ImageError(name, f"takes longer than {rules.seconds:g} s to decode", limited=True)
    needs, most = beyond.needs / MEGABYTE, rules.most / MEGABYTE
    reason = f"takes {needs:,.0f} MB of memory to decode, and the limit is {most:,.0f} MB"
    return ImageError(name, f"{reason}: make it smaller", limited=True)


def decoders(count: int, limits: Limits = LIMITS) -> Lane:
    """Return a lane of decoders for a run over a collection, with the limits of `index`.

    Args:
        count: Number of images that are decoded at once.
        limits: Limits of each image, from which the memory of a worker follows.
    """
    most = limits.memory(count)
    waiting = 1_000_000  # Only a few threads ask for decoders.
    return Lane(
        Rules(
            places=count,
            bytes=count * most,
            most=most,
            seconds=limits.time_limit,
            patience=2 * limits.time_limit,
            waiting=waiting,
        )
    )
