"""What `bench_extract` compares: imgsearch's pipeline, the loop a user would write, the bound.

Each function here is called in a fresh process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgsearch.embedding.models import Shapes, build, find_network
from imgsearch.embedding.pipeline import Embedded, embed_files
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.embedding.worker import RUN
from imgsearch.images.decode import decode, read

if TYPE_CHECKING:
    import torch

__all__ = [
    "Bound",
    "Job",
    "Photographs",
    "Run",
    "measure_bound",
    "prepare_model",
    "run_loop",
    "run_pipeline",
]

LOOP_BATCH = 32
LOOP_WORKERS = 2
LOOP_AHEAD = 2  # batches that a worker of the loop is ahead: the DataLoader's default
WARM = LOOP_BATCH  # images before the clock starts: the loop's first batch
TAIL = LOOP_BATCH * LOOP_WORKERS * LOOP_AHEAD  # images that are under way when the clock stops
FORWARD_IMAGES = 16  # decoded once and run again and again


@dataclass(frozen=True, slots=True)
class Job:
    """What a contestant is to do: the set over and over, `passes` times on the clock.

    Before the clock starts there are `WARM` images and after it stops `tail` more, so that at both
    moments as many images are decoded ahead. The number on the clock is rounded up to whole batches
    for each worker of the loop, because they come in step.
    """

    network: str
    weights: str | None
    onnx: Path
    photos: tuple[Path, ...]
    workers: int
    passes: int = 1
    tail: int = 0

    @property
    def clocked(self) -> int:
        """The number of images on the clock."""
        step = LOOP_BATCH * LOOP_WORKERS
        return -(-self.passes * len(self.photos) // step) * step

    @property
    def paths(self) -> list[str]:
        """The whole list."""
        count = WARM + self.clocked + self.tail
        return [str(self.photos[i % len(self.photos)]) for i in range(count)]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The seconds on the clock, and the embeddings: float32 `[photos, dim]`, a row a photograph."""

    seconds: float
    embeddings: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds an image that decoding and the network take, a process a core at the same time."""

    decode: float
    forward: float

    def rate(self, processes: int) -> float:
        """Return the images a second if nothing else took time."""
        return processes / (self.decode + self.forward)

    def mean(self, other: Bound) -> Bound:
        """Return the mean of two."""
        return Bound((self.decode + other.decode) / 2, (self.forward + other.forward) / 2)


def prepare_model(network: str, folder: Path, *, seeded: bool) -> tuple[str | None, Path]:
    """Export a network into `folder`; return the name of its weights and the ONNX file.

    Args:
        network: of the registry.
        folder: empty.
        seeded: make random weights instead of taking the network's default ones.
    """
    import torch
    import torchvision

    from imgsearch import Collection
    from imgsearch.storage.layout import Layout

    weights = None
    if seeded:
        torch.manual_seed(0)
        module = getattr(torchvision.models, network)(weights=None, init_weights=False)
        weights = str(folder / "weights.pt")
        torch.save(module.state_dict(), weights)
    Collection.create(folder / "collection", model=network, weights=weights).close()
    return weights, Layout(folder / "collection").model


def run_pipeline(job: Job) -> Run:
    """Embed with imgsearch, as `imgsearch index` does."""
    network = find_network(job.network)
    outcomes = embed_files(
        job.paths,
        wanted=lambda *_: True,  # the same photographs over and over, each embedded each time
        model=job.onnx,
        shapes=Shapes(network.input_size, network.dim),
        workers=job.workers,
    )
    begun, ended, rows = 0.0, 0.0, []
    for number, outcome in enumerate(outcomes, 1):
        if not isinstance(outcome, Embedded):
            raise SystemExit(f"{job.paths[number - 1]} was not embedded: {outcome}")
        if number == WARM:
            begun = time.perf_counter()
        if number == WARM + job.clocked:
            ended = time.perf_counter()
        if number <= len(job.photos):
            rows.append(outcome.embedding)
    return Run(ended - begun, np.stack(rows))


class Photographs:
    """The dataset of the loop: RGB, squashed, uint8 `[3, size, size]` as torchvision has it."""

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self._paths = paths
        self._size = size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        from torchvision.transforms.functional import pil_to_tensor

        image = Image.open(self._paths[index]).convert("RGB")
        image = image.resize((self._size, self._size), Image.Resampling.BILINEAR)
        return cast("torch.Tensor", pil_to_tensor(image))


def run_loop(job: Job, *, channels_last: bool) -> Run:
    """Embed with a torch DataLoader and the eager network, with the same weights and pixels.

    Args:
        job: what to do.
        channels_last: lay the pixels out in memory as the convolutions like them best, which
            takes knowing that; otherwise as torchvision's transforms leave them.
    """
    import torch
    from torch.utils.data import DataLoader

    network = find_network(job.network)
    found = find_weights(network, job.weights)
    module = build(network, read_state(network, found), source=found.name)
    dataset: Any = Photographs(job.paths, network.input_size)
    loader = DataLoader(
        dataset, batch_size=LOOP_BATCH, num_workers=LOOP_WORKERS, prefetch_factor=LOOP_AHEAD
    )
    begun, ended, parts, done = 0.0, 0.0, [], 0
    with torch.inference_mode():
        for batch in loader:
            pixels = batch.permute(0, 2, 3, 1)  # a view: NHWC by index, NCHW in memory
            if channels_last:
                pixels = pixels.contiguous()
            parts.append(module(pixels).numpy())
            done += len(batch)
            if done == WARM:
                begun = time.perf_counter()
            if done == WARM + job.clocked:
                ended = time.perf_counter()
    return Run(ended - begun, np.concatenate(parts)[: len(job.photos)])


def measure_bound(job: Job, seconds: float) -> Bound:
    """Measure decoding alone and the network alone, a single-threaded process a core at once."""
    context = get_context("spawn")
    barrier = context.Barrier(job.workers)
    with ProcessPoolExecutor(
        job.workers, mp_context=context, initializer=_set_barrier, initargs=(barrier,)
    ) as pool:
        futures = [pool.submit(_time_both, job, seconds, slot) for slot in range(job.workers)]
        decode_seconds, forward_seconds = np.mean([future.result() for future in futures], axis=0)
    return Bound(float(decode_seconds), float(forward_seconds))


_barrier: Barrier


def _set_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _time_both(job: Job, seconds: float, slot: int) -> tuple[float, float]:
    return _time_decode(job, seconds / 2, slot), _time_forward(job, seconds / 2, slot)


def _time_decode(job: Job, seconds: float, slot: int) -> float:
    """Return the seconds an image from open file to pixels."""
    size = find_network(job.network).input_size
    start = slot * len(job.photos) // job.workers  # or all would decode the same photo at once
    paths = [*job.photos[start:], *job.photos[:start]]

    def one_round() -> None:
        for path in paths:
            with path.open("rb") as file:
                decode(file, size, str(path))

    return _time_rounds(one_round, len(paths), seconds)


def _time_forward(job: Job, seconds: float, slot: int) -> float:
    """Return the seconds an image that the network takes, with the worker's session and batch."""
    size = find_network(job.network).input_size
    drawn = [job.photos[(slot + i) % len(job.photos)] for i in range(FORWARD_IMAGES)]
    pixels = np.stack([read(str(path), size).pixels for path in drawn])
    batches = [pixels[at : at + RUN] for at in range(0, len(pixels), RUN)]
    runtime = OnnxRuntime(job.onnx, threads=1)

    def one_round() -> None:
        for batch in batches:
            runtime.embed(batch)

    return _time_rounds(one_round, len(pixels), seconds)


def _time_rounds(one_round: Callable[[], None], images: int, seconds: float) -> float:
    """Run whole rounds for at least `seconds`, starting and ending with the other processes."""
    one_round()
    _barrier.wait()
    started = time.perf_counter()
    rounds, elapsed = 0, 0.0
    while elapsed < seconds:
        one_round()
        rounds += 1
        elapsed = time.perf_counter() - started
    one_round()  # not counted: keeps the core busy until the others are done
    return elapsed / (rounds * images)
