"""Have images decoded by worker processes, for many clients at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.exceptions import HTTPException

from imgsearch.embedding.decoder import BeyondError, Decoder, GivenUpError
from imgsearch.embedding.lanes import FullError, Lane, Rules, too_much
from imgsearch.embedding.pipeline import cores
from imgsearch.errors import ImageError
from imgsearch.images.limits import machine_memory
from imgsearch.web.options import ServerOptions
from imgsearch.web.remembering import Remembered

__all__ = ["Decoding"]

T = TypeVar("T")

FIRST = 32_000_000  # bytes of memory for the first attempt: the header tells if more is needed
QUICK_MOST = 128_000_000  # bytes of memory for one image in the quick lane
QUICK_BYTES = 400_000_000  # bytes for all of them together, or FIRST for each if that is more
QUICK_SECONDS = 1.0  # CPU time
QUICK_PATIENCE = 5.0
QUICK_WAITING = 256
SLOW_WAITING = 32
NICE = 5  # niceness of the slow lane
BYTES = 17  # bytes of memory that decoding one pixel may take: see imgsearch.images.limits
REFUSED = 10_000  # refused images to remember


class Decoding:
    """A quick lane, where every image is tried first, and a slow lane for those that need more."""

    def __init__(self, options: ServerOptions) -> None:
        """Set up the lanes without starting any worker."""
        # One place more than there are cores: now and then, one waits for another to release the
        # GIL.
        places = cores() + 1
        self._quick = Lane(
            Rules(
                places=places,
                bytes=max(QUICK_BYTES, FIRST * places),
                most=QUICK_MOST,
                seconds=QUICK_SECONDS,
                patience=QUICK_PATIENCE,
                waiting=QUICK_WAITING,
            )
        )
        memory = min(FIRST + BYTES * options.max_pixels, machine_memory() // 2)
        slow = max(1, cores() // 4)
        self._slow = Lane(
            Rules(
                places=slow,
                bytes=memory,
                most=memory,
                seconds=options.decode_seconds,
                patience=3 * options.decode_seconds,
                waiting=SLOW_WAITING,
                nice=NICE,
            )
        )
        self._threads = ThreadPoolExecutor(places + slow, "imgsearch-decoding")
        self._refused: Remembered[str, ImageError] = Remembered(REFUSED)

    @property
    def lane(self) -> Lane:
        """The quick lane, for images of the collection that may be left out if they need more."""
        return self._quick

    def warm_up(self) -> None:
        """Start the workers of the quick lane without waiting until they are ready."""
        self._quick.warm_up()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for lane in (self._quick, self._slow):
            lane.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[[Decoder], T], *, key: str, peer: str) -> T:
        """Run a function with a decoder in a thread, and return its result.

        If the awaiting task is cancelled, the decoder's worker is killed.

        Args:
            function: The function to run. It is called again, with a decoder that may use more,
                if an image needs more.
            key: A key for the image, so that an image beyond the limits is not tried twice.
            peer: The client that sent the request.

        Raises:
            ImageError: If an image cannot be decoded, or exceeds the limits.
            HTTPException: 503 if too many requests are waiting, or a worker was killed.
        """
        refused = self._refused.get(key)
        if refused is not None:
            raise refused
        try:
            return await self._run(function, peer)
        except FullError as error:
            busy = "too many images are being decoded; try again in a moment"
            raise HTTPException(503, busy, {"Retry-After": "5"}) from error
        except GivenUpError as error:
            lost = f"decoding was cut off ({error.reason}); try again"
            raise HTTPException(503, lost, {"Retry-After": "1"}) from error
        except ImageError as error:
            if error.limited:
                self._refused.put(key, error)
            raise

    async def _run(self, function: Callable[[Decoder], T], peer: str) -> T:
        lane, given = self._quick, FIRST
        while True:
            try:
                return await self._at(lane, given, function, peer)
            except BeyondError as beyond:
                needs = beyond.needs
                if lane is self._quick and (needs is None or needs > lane.rules.most):
                    lane, given = self._slow, max(lane.rules.most, needs or 0)
                elif needs is not None and needs > given:
                    given = needs
                else:
                    raise too_much("image", beyond, lane.rules) from beyond
                if given > lane.rules.most:
                    raise too_much("image", beyond, lane.rules) from beyond

    async def _at(self, lane: Lane, given: int, function: Callable[[Decoder], T], peer: str) -> T:
        turn = lane.enter(given, peer)
        try:
            waiting = turn.decoder
            decoder = waiting.result() if waiting.done() else await asyncio.wrap_future(waiting)
            job = self._threads.submit(function, decoder)
        except BaseException:
            lane.leave(turn)
            raise
        job.add_done_callback(lambda _: lane.leave(turn))
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            lane.cancel(turn)
            raise
