"""Compare imgsearch's extraction with the loop a user would write, and with what is possible.

The loop: a torch DataLoader with 2 workers, the eager network with the same weights, batches of 32.
The bound: cores / (seconds to decode + seconds of the network), each measured alone, with a
single-threaded process a core at the same time, before and after each run of the pipeline.

All take turns, each in a fresh process. Steady images/s leave the start out on both sides: the
clock starts when the first 32 images are there, and stops while 128 more are under way. Cold
images/s include everything from the start of the interpreter to the last image. Ratios are medians
of those of each turn.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.agreement import Agreement, compare
from benchmarks.common import (
    Photos,
    cores,
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.contestants import (
    TAIL,
    Bound,
    Job,
    Run,
    measure_bound,
    prepare_model,
    run_loop,
    run_pipeline,
)
from imgsearch.embedding.models import find_network

NETWORKS = ("mobilenet_v2", "inception_v3")
SEEDED = ("inception_v3",)  # random weights: no package carries them, and speed is the same
SETS = ("web250", "camera")
QUICK_PHOTOS = 12


@dataclass(frozen=True, slots=True)
class Region:
    """The figures of one contestant in one turn."""

    images: int
    steady_seconds: float
    steady_rate: float
    cold_seconds: float
    cold_rate: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One alternation."""

    loop: Region
    loop_channels_last: Region | None
    pipeline: Region
    bound: Bound
    bound_rate: float
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Result:
    """A network on a set of photographs."""

    network: str
    photos: str
    count: int
    speedup: float
    speedup_channels_last: float | None
    speedup_cold: float
    of_bound: float
    agrees: bool
    turns: tuple[Turn, ...]


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    sets = find_photos(options.data, options.sets[:1] if options.quick else options.sets)
    results = []
    for network in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            seeded = network in SEEDED
            (weights, onnx), _ = in_fresh_process(
                prepare_model, network, Path(folder), seeded=seeded
            )
            for photos in sets:
                drawn = photos.first(QUICK_PHOTOS if options.quick else None)
                job = Job(network, weights, onnx, drawn.paths, options.workers)
                results.append(_compare(job, drawn, options))
    _print(results)
    write_json(options.json, "extract", options, results)
    if not all(result.agrees for result in results):
        raise SystemExit("the two sides disagree: they did not do the same work")


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_extract", __doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="FOLDER")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--turns", type=int, help="alternations  [default: 5]")
    parser.add_argument("--seconds", type=float, help="a run takes at least  [default: 10]")
    parser.add_argument(
        "--no-channels-last", action="store_true", help="leave out the loop in its faster layout"
    )
    options = parser.parse_args()
    options.networks = options.networks or (NETWORKS[:1] if options.quick else NETWORKS)
    options.no_channels_last |= options.quick
    options.turns = options.turns or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.5 if options.quick else 10.0)
    return options


def _compare(job: Job, photos: Photos, options: argparse.Namespace) -> Result:
    """Let all take turns on one network and one set."""
    label = f"{job.network}, {photos.name} ({len(photos.paths)} photographs)"
    note(f"{label}: trying how many rounds take {options.seconds:g} s")
    loop_job, our_job = job, job
    if not options.quick:
        loop_trial, _ = in_fresh_process(run_loop, job, channels_last=False)
        our_trial, _ = in_fresh_process(run_pipeline, job)
        loop_job = _long_enough(job, loop_trial, options.seconds)
        our_job = _long_enough(job, our_trial, options.seconds)
    turns = []
    for number in range(options.turns):
        turn = _take_turn(loop_job, our_job, options)
        note(
            f"{label}: turn {number + 1} of {options.turns}: loop {turn.loop.steady_rate:.1f}, "
            f"imgsearch {turn.pipeline.steady_rate:.1f}, bound {turn.bound_rate:.1f} images/s"
        )
        turns.append(turn)
    faster = [
        t.pipeline.steady_rate / t.loop_channels_last.steady_rate
        for t in turns
        if t.loop_channels_last
    ]
    return Result(
        network=job.network,
        photos=photos.name,
        count=len(photos.paths),
        speedup=median(t.pipeline.steady_rate / t.loop.steady_rate for t in turns),
        speedup_channels_last=median(faster) if faster else None,
        speedup_cold=median(t.pipeline.cold_rate / t.loop.cold_rate for t in turns),
        of_bound=median(t.pipeline.steady_rate / t.bound_rate for t in turns),
        agrees=all(turn.agreement.holds for turn in turns),
        turns=tuple(turns),
    )


def _long_enough(job: Job, trial: Run, seconds: float) -> Job:
    """Return the job with as many rounds as take the seconds asked for, and with a tail."""
    rate = job.clocked / trial.seconds
    passes = max(1, math.ceil(seconds * rate / len(job.photos)))
    return replace(job, passes=passes, tail=TAIL)


def _take_turn(loop_job: Job, our_job: Job, options: argparse.Namespace) -> Turn:
    loop, loop_side = _measure(loop_job, *in_fresh_process(run_loop, loop_job, channels_last=False))
    before, _ = in_fresh_process(measure_bound, our_job, options.seconds / 2)
    ours, our_side = _measure(our_job, *in_fresh_process(run_pipeline, our_job))
    after, _ = in_fresh_process(measure_bound, our_job, options.seconds / 2)
    bound = before.mean(after)
    size = find_network(our_job.network).input_size
    faster_side = None
    if not options.no_channels_last:
        faster_run = in_fresh_process(run_loop, loop_job, channels_last=True)
        faster_side = _measure(loop_job, *faster_run)[1]
    return Turn(
        loop=loop_side,
        loop_channels_last=faster_side,
        pipeline=our_side,
        bound=bound,
        bound_rate=bound.rate(our_job.workers),
        agreement=compare(our_job.photos, size, loop.embeddings, ours.embeddings),
    )


def _measure(job: Job, run: Run, seconds: float) -> tuple[Run, Region]:
    return run, Region(
        images=job.clocked,
        steady_seconds=run.seconds,
        steady_rate=job.clocked / run.seconds,
        cold_seconds=seconds,
        cold_rate=len(job.paths) / seconds,
    )


def _print(results: list[Result]) -> None:
    print_table(
        "Extraction, images/s, medians; steady state unless it says cold",
        (
            "network, photographs",
            "loop",
            "loop ch.last",
            "imgsearch",
            "bound",
            "cold loop",
            "cold imgsearch",
        ),
        [_speeds(result) for result in results],
    )
    print_table(
        "Ratios, medians of those of each turn",
        (
            "network, photographs",
            "× loop",
            "× loop ch.last",
            "× loop, cold",
            "of the bound",
            "cosine, full",
            "reduced",
            "strangers",
            "compared",
        ),
        [
            (
                f"{r.network}, {r.photos}",
                f"{r.speedup:.2f}",
                f"{r.speedup_channels_last:.2f}" if r.speedup_channels_last else "-",
                f"{r.speedup_cold:.2f}",
                f"{r.of_bound:.3f}",
                f"{min(t.agreement.full for t in r.turns):.5f}",
                f"{min(t.agreement.reduced for t in r.turns):.5f}",
                f"{median(t.agreement.strangers for t in r.turns):.5f}",
                f"{r.turns[0].agreement.compared} of {r.count}",
            )
            for r in results
        ],
    )
    print(
        "\n  Images on the clock, a run: "
        + "; ".join(
            f"{r.network}, {r.photos}: loop {r.turns[0].loop.images}, "
            f"imgsearch {r.turns[0].pipeline.images}"
            for r in results
        )
    )


def _speeds(result: Result) -> tuple[str, ...]:
    turns = result.turns
    faster = [t.loop_channels_last.steady_rate for t in turns if t.loop_channels_last]
    figures = (
        median(t.loop.steady_rate for t in turns),
        median(faster) if faster else None,
        median(t.pipeline.steady_rate for t in turns),
        median(t.bound_rate for t in turns),
        median(t.loop.cold_rate for t in turns),
        median(t.pipeline.cold_rate for t in turns),
    )
    cells = (f"{figure:.1f}" if figure else "-" for figure in figures)
    return f"{result.network}, {result.photos}", *cells


if __name__ == "__main__":
    main()
