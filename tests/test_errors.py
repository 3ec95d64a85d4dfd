"""Exceptions: what they carry, and that it reaches another process."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import imgsearch
from imgsearch.collection import Collection
from imgsearch.errors import GoneError, ImageError, ImgsearchError, NoImageError, PackageError
from imgsearch.indexing.report import IndexReport

EXCEPTION = re.compile(r"^ *class \w+\([^)]*(Error|Exception)\b", re.MULTILINE)
VALUES = {"str": "what it is", "int": 7, "float": 2.5, "bool": True, "object": ("a", "report")}


def own_errors() -> Iterator[type[Exception]]:
    """Yield every class of exceptions that the package defines, those of the edges, too."""
    package = Path(imgsearch.__path__[0])
    for path in sorted(package.rglob("*.py")):
        if EXCEPTION.search(path.read_text()):  # not all: some need packages that may be absent
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            for kind in vars(import_module(name)).values():
                own = isinstance(kind, type) and kind.__module__ == name
                if own and issubclass(kind, Exception):
                    yield kind


ERRORS = sorted(own_errors(), key=lambda kind: kind.__qualname__)


def made(kind: type[Exception]) -> Exception:
    """Return an exception whose arguments are no defaults."""
    if not inspect.isfunction(kind.__init__):
        return kind("what failed: why; the remedy")
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return kind(
        **{
            parameter.name: VALUES[str(parameter.annotation).split(" | ")[0]]
            for parameter in parameters
        }
    )


def facts(error: BaseException) -> tuple[Any, ...]:
    return type(error), str(error), error.args, vars(error)


def test_every_module_was_searched_for_errors() -> None:
    assert {kind.__module__.split(".")[1] for kind in ERRORS} >= {"errors", "web", "embedding"}
    assert {kind for kind in ERRORS if issubclass(kind, ImgsearchError)} >= {
        *ImgsearchError.__subclasses__(),
        ImgsearchError,
    }


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__qualname__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickle_and_copy(kind: type[Exception], protocol: int) -> None:
    error = made(kind)
    error.add_note("seen while indexing")
    for again in (
        pickle.loads(pickle.dumps(error, protocol)),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert facts(again) == facts(error)


def test_a_report_goes_with_its_error(tree: Path, collection: Collection) -> None:
    collection.index(tree)
    report = collection.index()
    again = pickle.loads(pickle.dumps(GoneError("a drive is gone", report)))
    assert isinstance(again.report, IndexReport)
    assert again.report == report


def test_an_error_has_the_exit_code_of_its_kind() -> None:
    kinds = {kind.__name__: kind.exit_code for kind in ERRORS if issubclass(kind, ImgsearchError)}
    public = {name: code for name, code in kinds.items() if not name.startswith("_")}
    assert {name: code for name, code in public.items() if code != 3} == {
        "ImgsearchError": 1,
        "SettingError": 2,
        "DamagedError": 4,
        "BusyError": 5,
        "ModelError": 6,
        "UntrustedModelError": 6,
        "PackageError": 6,
        "StorageError": 7,
    }


def ask(directory: Path, query: Path) -> str:
    with Collection.open(directory, device="cpu") as collection:
        return collection.query(query, k=1)[0].path


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["executor", "pool"])
def test_an_error_in_a_process_of_a_pool_reaches_who_waits_for_it(
    kind: str, indexed: Path, tmp_path: Path
) -> None:
    (broken := tmp_path / "broken.jpg").touch()
    spawn = multiprocessing.get_context("spawn")
    if kind == "executor":
        with ProcessPoolExecutor(1, mp_context=spawn) as executor:
            error = executor.submit(ask, indexed, broken).exception(timeout=60)
    else:
        with spawn.Pool(1) as pool, pytest.raises(ImageError) as caught:
            pool.apply_async(ask, (indexed, broken)).get(timeout=60)
        error = caught.value
    assert isinstance(error, ImageError)
    assert (error.path, error.recognised) == (str(broken), True)
    assert str(error) == f"{broken}: is named like an image but is empty"


def test_a_message_is_not_said_twice() -> None:
    again = pickle.loads(pickle.dumps(NoImageError(3)))
    assert str(again) == "there is no image with the id 3 in the collection"
    assert str(copy.copy(PackageError("it needs Ray", "ray"))) == (
        "it needs Ray; install it with `pip install '.[ray]'` in a checkout of imgsearch"
    )
