"""What the benchmarks share: options, photographs, facts of the machine, tables, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

__all__ = [
    "Photos",
    "cores",
    "find_photos",
    "in_fresh_process",
    "make_parser",
    "note",
    "print_table",
    "write_json",
]

P = ParamSpec("P")
T = TypeVar("T")

DATA_VARIABLE = "IMGSEARCH_DATA"
PACKAGES = (
    "imgsearch-faiss",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "onnxruntime",
    "pillow",
    "torch",
    "torchvision",
)
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".mpo")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what figures were taken; `load` is the load average when they were begun."""

    cores: int
    cpu: str
    system: str
    python: str
    packages: dict[str, str]
    load: tuple[float, float, float]
    time: str


@dataclass(frozen=True, slots=True)
class Photos:
    """A set of photographs and the name it goes by."""

    name: str
    paths: tuple[Path, ...]

    def first(self, count: int | None) -> Photos:
        """Return a set of at most `count` of them, evenly drawn."""
        if count is None or count >= len(self.paths):
            return self
        step = len(self.paths) / count
        return Photos(self.name, tuple(self.paths[int(i * step)] for i in range(count)))


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get(DATA_VARIABLE),
        help=f"folder with corel1k/, web250/ and camera/; without it, and without "
        f"{DATA_VARIABLE}, the photographs of scikit-image are used",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: the figures mean little"
    )
    return parser


def find_photos(data: Path | None, names: Sequence[str]) -> list[Photos]:
    """Return the sets called `names` under `data`, or the one that scikit-image carries."""
    if data is not None:
        sets = [Photos(name, _photos_in(data / name)) for name in names]
        for photos in sets:
            if not photos.paths:
                raise SystemExit(f"there are no photographs in {data / photos.name}")
        return sets
    from skimage import data_dir  # type: ignore[attr-defined]  # lazily loaded

    note(f"neither --data nor {DATA_VARIABLE} is given: using the photographs of scikit-image")
    return [Photos("scikit-image", _photos_in(Path(data_dir)))]


def _photos_in(folder: Path) -> tuple[Path, ...]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    return tuple(sorted(path.absolute() for path in found))


def cores() -> int:
    """Return the number of cores that this process may use, as `imgsearch index` counts them."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def in_fresh_process(
    function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> tuple[T, float]:
    """Call `function` in a new interpreter; return its result and the seconds with start-up."""
    started = time.perf_counter()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        result = process.submit(function, *args, **kwargs).result()
        return result, time.perf_counter() - started


def note(text: str) -> None:
    """Say on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def write_json(
    path: Path | None, benchmark: str, options: argparse.Namespace, results: Any
) -> None:
    """Write the machine's facts, the options and dataclasses of results, if a path was given."""
    if path is None:
        return
    report = {
        "benchmark": benchmark,
        "machine": asdict(_machine()),
        "options": {key: value for key, value in vars(options).items() if key != "json"},
        "results": [asdict(result) for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    note(f"wrote {path}")


def _machine() -> Machine:
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        cores=cores(),
        cpu=_cpu(),
        system=platform.platform(),
        python=platform.python_version(),
        packages=packages,
        load=os.getloadavg(),
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
