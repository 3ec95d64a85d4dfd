"""Find the copies of `benchmarks.bench_duplicates` with other programs, on the same files.

The perceptual hashes of imagededup and imagehash are compared as imagededup does by default: two
images are copies if their hashes differ in up to 10 of 64 bits. imagehash has hashes only, so all
pairs are compared here. The bindings of Czkawka's library (`czkawka` of PyPI, not by its authors)
are used with their defaults. A program that is not installed is left out:

    pip install czkawka imagededup imagehash

imagededup's CNN is left out because its weights are downloaded when it is first used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from benchmarks.common import in_fresh_process, note
from imgsearch import Collection, find_duplicates

__all__ = ["PeerResult", "peer_results"]

MOST_BITS = 10  # by which the hashes of copies differ

#: Two files that were called copies.
Pair: TypeAlias = tuple[Path, Path]


@dataclass(frozen=True, slots=True)
class PeerResult:
    """What a program found: the recall of each change, the precision of all pairs, the time."""

    name: str
    recall: dict[str, float]
    precision: float
    seconds: float


def peer_results(folder: Path) -> Iterator[PeerResult]:
    """Yield what each program that is installed finds in a folder.

    Args:
        folder: Folders, each with `original.jpg` and copies that are named for their change.
    """
    for name, module, find in PEERS:
        if find_spec(module) is None:
            note(f"{name} is not installed")
            continue
        note(f"finding copies with {name}")
        yield in_fresh_process(_result, name, find, folder)[0]


def _result(name: str, find: Callable[[Path], Iterable[Pair]], folder: Path) -> PeerResult:
    started = time.perf_counter()
    pairs = {frozenset(pair) for pair in find(folder)}
    seconds = time.perf_counter() - started
    originals = sorted(folder.glob("*/original.jpg"))
    changes = sorted(path.stem for path in originals[0].parent.iterdir())
    changes.remove("original")
    recall = {
        change: np.mean(
            [{original, original.with_stem(change)} in pairs for original in originals]
        ).item()
        for change in changes
    }
    right = sum(len({path.parent for path in pair}) == 1 for pair in pairs)
    return PeerResult(name, recall, right / max(1, len(pairs)), seconds)


def _imgsearch(folder: Path) -> Iterator[Pair]:
    """Index a folder, and yield the pairs of each group."""
    beside = folder.parent / "beside the peers"
    os.environ["XDG_CACHE_HOME"] = str(beside / "cache")  # where an earlier run left nothing
    with Collection.create(beside / "collection") as collection:
        collection.index(folder)
    for group in find_duplicates(beside / "collection").groups:
        paths = [Path(copy.path) for copy in (group.keep, *group.others)]
        yield from combinations(paths, 2)


def _imagehash(folder: Path) -> Iterator[Pair]:
    import imagehash

    paths, hashes = sorted(folder.glob("*/*")), []
    for path in paths:
        with Image.open(path) as image:
            hashes.append(imagehash.phash(image).hash.ravel())
    bits = np.array(hashes)
    for row, path in enumerate(paths):
        differing = (bits[row + 1 :] != bits[row]).sum(axis=1)
        for other in np.flatnonzero(differing <= MOST_BITS).tolist():
            yield path, paths[row + 1 + other]


def _imagededup(folder: Path) -> Iterator[Pair]:
    from imagededup.methods import PHash

    method = PHash(verbose=False)
    encodings = method.encode_images(image_dir=folder, recursive=True)
    found = method.find_duplicates(encoding_map=encodings, max_distance_threshold=MOST_BITS)
    for name, others in found.items():
        for other in others:
            yield folder / name, folder / other


def _czkawka(folder: Path) -> Iterator[Pair]:
    from czkawka import ImageSimilarity

    finder = ImageSimilarity()
    finder.set_directories([folder])
    for group in finder.find_similar():
        yield from combinations(map(Path, group), 2)


PEERS: tuple[tuple[str, str, Callable[[Path], Iterable[Pair]]], ...] = (
    ("imgsearch", "imgsearch", _imgsearch),
    ("imagededup, PHash", "imagededup", _imagededup),
    ("imagehash, phash", "imagehash", _imagehash),
    ("czkawka", "czkawka", _czkawka),
)
