"""Load `imgsearch serve`: images that are sent, and images by id.

A server in a process of its own serves Corel-1k; 8 clients, in another process, ask it over
connections that stay open, each its next question as soon as it has the answer: for 60 seconds with
the files of web250, then for 20 seconds by the ids of images. Before and after, in turns, the
pipeline of `imgsearch index` extracts the same files, as bench_extract measures it (steady, images
a second). The clients share the machine's cores with the server.

Required: no error; at least 0.7 of the pipeline's rate; by id, 99 % of the answers within 50 ms.

With `--hostile`, 8 further clients send the worst files that were found meanwhile, and nothing else
is measured. Required then: no error of the others, 99 % of their answers within 5 seconds, and less
than 2.5 GB of memory for all processes of the server together.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from uuid import uuid4

import numpy as np

from benchmarks.common import (
    cores,
    find_photos,
    in_fresh_process,
    make_parser,
    note,
    print_table,
    write_json,
)
from benchmarks.contestants import Job, prepare_model, run_pipeline
from benchmarks.hostile_load import Attackers, Memory, worst_files
from benchmarks.subjects import index_folder

CLIENTS = 8
WARM_SECONDS = 2.0
LEAST_SHARE = 0.7
MOST_BY_ID = 0.050
MOST_BESIDE = 5.0  # seconds, beside hostile files
MOST_MEMORY = 2_500_000_000  # bytes
K = 10


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients saw: answers a second, errors, and quantiles of the time to an answer."""

    asked: str
    seconds: float
    answers: int
    errors: int
    rate: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Share:
    """Answers a second to images that are sent, and the pipeline's images a second, each turn."""

    served: float
    extracted: tuple[float, ...]

    @property
    def share(self) -> float:
        """Return the one by the median of the others."""
        return self.served / median(self.extracted)


@dataclass(frozen=True, slots=True)
class Siege:
    """What ordinary clients saw beside hostile ones, and what the server took.

    Attributes:
        load: What the ordinary clients saw.
        hostile: How often each status was answered to the others; 0 where there was no answer.
        memory: Bytes that all processes of the server had together, at most.
    """

    load: Load
    hostile: dict[int, int]
    memory: int

    @property
    def is_fine(self) -> bool:
        """Whether what is required was kept."""
        quick = self.load.p99 <= MOST_BESIDE and not self.load.errors
        return quick and self.memory < MOST_MEMORY and not self.hostile.get(500)


class Server:
    """`imgsearch serve`, until the context ends."""

    def __init__(self, collection: Path, cache: Path) -> None:
        command = [sys.executable, "-m", "imgsearch", "-c", str(collection), "serve", "--port", "0"]
        self._process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if "http://" not in said:
            raise SystemExit(f"no server: {said}")
        self.process = self._process.pid
        self.port = int(said.partition("http://")[2].split("/")[0].rpartition(":")[2])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=30)
        if self._process.returncode:
            raise SystemExit("the server did not end well")


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    indexed, sent = find_photos(options.data, ("corel1k/images", "web250")) * (
        1 if options.data else 2
    )
    if options.quick:
        indexed, sent = indexed.first(40), sent.first(20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        note(f"indexing {len(indexed.paths)} photographs")
        in_fresh_process(index_folder, indexed.name, folder / "collection", indexed.paths, ())
        if options.hostile:
            with Server(folder / "collection", folder / "cache") as server:
                note(f"sending {sent.name}, and hostile files, for {options.seconds:.0f} s")
                bodies = [form_of(image=path.read_bytes()) for path in sent.paths]
                scale = 0.2 if options.quick else 1.0
                siege = in_fresh_process(
                    besiege, server.port, server.process, bodies, options.seconds, scale
                )[0]
            _print_siege(siege)
            write_json(options.json, "serve-hostile", options, [siege])
            if not siege.is_fine:
                raise SystemExit("what is required was missed")
            return
        (folder / "model").mkdir()
        prepared = in_fresh_process(prepare_model, "mobilenet_v2", folder / "model", seeded=False)
        weights, onnx = prepared[0]
        job = Job("mobilenet_v2", weights, onnx, sent.paths, cores(), options.passes, tail=128)
        extracted = [_extract(job)]
        with Server(folder / "collection", folder / "cache") as server:
            note(f"sending {sent.name} for {options.seconds:.0f} s")
            bodies = [form_of(image=path.read_bytes()) for path in sent.paths]
            by_image = in_fresh_process(_load, "images", server.port, bodies, options.seconds)[0]
            note(f"asking by id for {options.by_id:.0f} s")
            ids = [form_of(like=number) for number in range(1, len(indexed.paths) + 1)]
            by_id = in_fresh_process(_load, "ids", server.port, ids, options.by_id)[0]
        extracted.append(_extract(job))
    share = Share(by_image.rate, tuple(extracted))
    _print((by_image, by_id), share)
    write_json(options.json, "serve", options, [by_image, by_id, share])
    fine = not (by_image.errors or by_id.errors)
    if not (fine and share.share >= LEAST_SHARE and by_id.p99 <= MOST_BY_ID):
        raise SystemExit("what is required was missed")


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_serve", __doc__)
    parser.add_argument("--seconds", type=float, help="of sending images  [default: 60]")
    parser.add_argument("--by-id", type=float, help="seconds of asking by id  [default: 20]")
    parser.add_argument("--passes", type=int, help="of each extraction  [default: 8]")
    parser.add_argument("--hostile", action="store_true", help="let others send hostile files")
    options = parser.parse_args()
    options.seconds = options.seconds or (3.0 if options.quick else 60.0)
    options.by_id = options.by_id or (2.0 if options.quick else 20.0)
    options.passes = options.passes or (2 if options.quick else 8)
    return options


def _extract(job: Job) -> float:
    note("extracting")
    run = in_fresh_process(run_pipeline, job)[0]
    return job.clocked / run.seconds


def form_of(image: bytes | None = None, like: int | None = None) -> tuple[bytes, str]:
    """Return the body of a question, and its boundary."""
    boundary = uuid4().hex
    parts = [b'name="k"\r\n\r\n%d' % K]
    if image is not None:
        head = b'name="image"; filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        parts.append(head + image)
    if like is not None:
        parts.append(b'name="like"\r\n\r\n%d' % like)
    begin = f"--{boundary}\r\nContent-Disposition: form-data; ".encode()
    body = b"".join(begin + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), boundary


def besiege(
    port: int, process: int, bodies: list[tuple[bytes, str]], seconds: float, scale: float = 1.0
) -> Siege:
    """Let ordinary clients ask while others send hostile files.

    Args:
        port: Port of the server.
        process: Id of its process.
        bodies: Forms of the ordinary clients, and their boundaries.
        seconds: Seconds to ask for.
        scale: See `worst_files`.
    """
    worst = [form_of(image=content) for content in worst_files(scale)]
    attackers = Attackers(port, worst, CLIENTS)
    with Memory(process) as memory, attackers:
        load = _load("images beside hostile ones", port, bodies, seconds)
    return Siege(load, dict(attackers.answers), memory.peak)


def _load(asked: str, port: int, bodies: list[tuple[bytes, str]], seconds: float) -> Load:
    """Let the clients ask, after they did so for a moment to warm up."""
    questions = cycle(bodies)
    lock = threading.Lock()

    def next_one() -> tuple[bytes, str]:
        with lock:
            return next(questions)

    _ask_for(WARM_SECONDS, port, next_one)
    started = time.perf_counter()
    times, errors = _ask_for(seconds, port, next_one)
    took = time.perf_counter() - started
    p50, p90, p99 = (float(value) for value in np.quantile(times, (0.5, 0.9, 0.99)))
    return Load(asked, took, len(times), errors, len(times) / took, p50, p90, p99)


def _ask_for(
    seconds: float, port: int, next_one: Callable[[], tuple[bytes, str]]
) -> tuple[list[float], int]:
    times: list[list[float]] = [[] for _ in range(CLIENTS)]
    errors = [0] * CLIENTS
    until = time.perf_counter() + seconds

    def ask(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (begun := time.perf_counter()) < until:
            body, boundary = next_one()
            kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            try:
                connection.request("POST", "/api/v1/query", body, kind)
                answer = connection.getresponse()
                hits = json.loads(answer.read())["hits"]
                errors[client] += answer.status != 200 or len(hits) != K
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                errors[client] += 1
                connection.close()
                continue
            times[client].append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each for client in times for each in client], sum(errors)


def _print_siege(siege: Siege) -> None:
    _print_loads((siege.load,))
    answered = ", ".join(f"{count} x {status}" for status, count in sorted(siege.hostile.items()))
    print(f"\nto {CLIENTS} clients with hostile files: {answered}")
    print(f"memory of all processes of the server: {siege.memory / 1e6:,.0f} MB at most")


def _print(loads: tuple[Load, ...], share: Share) -> None:
    _print_loads(loads)
    rates = ", ".join(f"{rate:.0f}" for rate in share.extracted)
    print(
        f"\n{share.served:.0f} images/s answered, {rates} images/s extracted by the pipeline: "
        f"{share.share:.2f} of its rate"
    )


def _print_loads(loads: tuple[Load, ...]) -> None:
    print_table(
        f"{CLIENTS} clients, k = {K}",
        ("asked by", "seconds", "answers", "errors", "answers/s", "p50 ms", "p90 ms", "p99 ms"),
        [
            (
                *(load.asked, f"{load.seconds:.0f}", f"{load.answers:,}", str(load.errors)),
                *(
                    f"{load.rate:.0f}",
                    *(f"{1000 * at:.1f}" for at in (load.p50, load.p90, load.p99)),
                ),
            )
            for load in loads
        ],
    )


if __name__ == "__main__":
    main()
