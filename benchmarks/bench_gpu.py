"""Measure embedding on a GPU: is it right, how fast is each part, and what else there is.

Parity: the embeddings of the same files on the GPU and on a CPU, by ONNX Runtime, and the ten
images nearest to each in both. Then images/s of our pipeline with a network that takes no time
(decoding), of the network alone, and of both together; of a torch DataLoader with the eager network
on the same GPU, as a user first writes it (batches of 32), and tuned (batches of 256, pinned,
channels_last, mixed precision); and what timm publishes for a forward pass of the same network,
and measures here if it is installed. Nothing is fetched: Inception v3 has random weights from a
seed unless its own are in torch's cache, which changes its embeddings and not its speed.

Each measurement takes `--seconds`: with an H100 and 16 cores, about four minutes in all by default.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

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
from benchmarks.gpu_contestants import (
    OnDevice,
    Subject,
    measure_decoding,
    measure_loop,
    measure_on_device,
    prepare,
)
from imgsearch.embedding.pipeline import GPU_BATCH

NETWORKS = ("mobilenet_v2", "inception_v3")
SETS = ("web250", "corel1k")
FEW = 24  # photographs of a smoke test
QUICK_BATCH = 8  # images of a batch in one
MOST = 1_000  # photographs whose embeddings are compared

#: What embeddings may differ by, and by how much a hit may be farther than the tenth of the CPU's.
TOLERANCE = 1e-3

#: Images/s of a forward pass in mixed precision, channels_last, batches of 512, that timm publishes
#: for an RTX 4090 (torch 2.4, CUDA 12.4): github.com/huggingface/pytorch-image-models, commit
#: 7479d451, results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv. It has none for an H100.
PUBLISHED = {"mobilenet_v2": 11_768.03, "inception_v3": 4_356.9}


@dataclass(frozen=True, slots=True)
class Result:
    """A network on a GPU; rates are images/s."""

    network: str
    weights: str
    decoding: float
    device: OnDevice
    loop: float
    tuned: float
    timm_published: float

    @property
    def agrees(self) -> bool:
        """Tell whether the GPU's embeddings are a CPU's to what is allowed, and find the same."""
        parity = self.device.parity
        return max(parity.value, parity.distance, parity.shortfall) <= TOLERANCE


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    sets = find_photos(options.data, options.sets)
    if options.quick:
        sets = [photos.first(FEW // len(sets)) for photos in sets]
    results = [_measure(network, sets, options) for network in options.networks]
    _print(results, sets)
    write_json(options.json, "gpu", options, results)
    if not all(result.agrees for result in results):
        raise SystemExit(f"the GPU's embeddings differ from the CPU's by more than {TOLERANCE:g}")


def _parse() -> argparse.Namespace:
    parser = make_parser("benchmarks.bench_gpu", __doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument(
        "--sets", nargs="+", default=SETS, metavar="FOLDER", help="the first is what speed is of"
    )
    parser.add_argument("--device", default="cuda", help="of torch  [default: cuda]")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--seconds", type=float, help="a measurement takes  [default: 5]")
    options = parser.parse_args()
    options.seconds = options.seconds or (0.5 if options.quick else 5.0)
    return options


def _measure(network: str, sets: list[Photos], options: argparse.Namespace) -> Result:
    everything = tuple(chain.from_iterable(photos.paths for photos in sets))
    compared = Photos("all", everything).first(MOST).paths
    fast = sets[0].paths
    with tempfile.TemporaryDirectory() as folder:
        note(f"{network}: exporting")
        (weights, onnx), _ = in_fresh_process(prepare, network, Path(folder), compared)
        batch = QUICK_BATCH if options.quick else GPU_BATCH
        subject = Subject(
            network, weights, onnx, options.device, options.workers, options.seconds, batch
        )
        decoding, _ = in_fresh_process(measure_decoding, subject, fast)
        note(f"{network}: decoding {decoding:,.0f} images/s; now the device")
        device, _ = in_fresh_process(measure_on_device, subject, compared, fast)
        note(f"{network}: {device}")
        loop, _ = in_fresh_process(measure_loop, subject, fast, tuned=False)
        note(f"{network}: loop {loop:,.0f} images/s")
        tuned, _ = in_fresh_process(measure_loop, subject, fast, tuned=True)
        note(f"{network}: tuned loop {tuned:,.0f} images/s")
    return Result(
        network=network,
        weights="random, from a seed" if weights else "its own",
        decoding=decoding,
        device=device,
        loop=loop,
        tuned=tuned,
        timm_published=PUBLISHED[network],
    )


def _print(results: list[Result], sets: list[Photos]) -> None:
    card = results[0].device.card
    print(
        f"\n{card.name}, {card.memory_gib:.0f} GiB, driver {card.driver}, CUDA {card.cuda}, "
        f"cuDNN {card.cudnn}; {cores()} cores; photographs: "
        + ", ".join(f"{len(photos.paths)} of {photos.name}" for photos in sets)
    )
    print_table(
        f"The GPU's embeddings against a CPU's, which may differ by {TOLERANCE:g}",
        (
            "network, weights",
            "images",
            "largest difference",
            "L2 distance",
            "least cosine",
            "same ten hits",
            "of the hits",
            "shortfall",
        ),
        [
            (
                f"{r.network}, {r.weights}",
                f"{r.device.parity.images}",
                f"{r.device.parity.value:.1e}",
                f"{r.device.parity.distance:.1e}",
                f"{r.device.parity.cosine:.6f}",
                f"{r.device.parity.same:.2%}",
                f"{r.device.parity.overlap:.2%}",
                f"{r.device.parity.shortfall:.1e}",
            )
            for r in results
        ],
    )
    print_table(
        f"Images/s, photographs of {sets[0].name}",
        (
            "network",
            "decoding",
            "network",
            "both",
            "loop",
            "loop tuned",
            "× loop",
            "× tuned",
            "of the slower part",
        ),
        [
            (
                r.network,
                f"{r.decoding:,.0f}",
                f"{r.device.network:,.0f}",
                f"{r.device.both:,.0f}",
                f"{r.loop:,.0f}",
                f"{r.tuned:,.0f}",
                f"{r.device.both / r.loop:.2f}",
                f"{r.device.both / r.tuned:.2f}",
                f"{r.device.both / min(r.decoding, r.device.network):.2f}",
            )
            for r in results
        ],
    )
    print_table(
        "Images/s of a forward pass, pixels on the GPU, and the memory of the pipeline there",
        ("network", "imgsearch", "timm here, mixed", "timm on an RTX 4090, mixed", "MiB"),
        [
            (
                r.network,
                f"{r.device.forward:,.0f}",
                f"{r.device.timm:,.0f}" if r.device.timm else "-",
                f"{r.timm_published:,.0f}",
                f"{r.device.memory_mib:,.0f}",
            )
            for r in results
        ],
    )


if __name__ == "__main__":
    main()
