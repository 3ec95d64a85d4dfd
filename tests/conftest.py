"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# The tests run on every core already, and are small: further threads of Faiss would only wait,
# at the cost of a core each. It is said before OpenMP is loaded, and to the processes of tests.
os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from imgsearch.cli import gallery_page, main
from imgsearch.collection import Collection
from imgsearch.indexing import create, engine, networks
from imgsearch.indexing.engine import Engine
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.maintenance import sample
from imgsearch.querying import looking
from tests.support import depth as harming
from tests.support.aged_collection import LivedIn, live_in
from tests.support.commands import Ended, Run, imgsearch_command, run_here, run_python
from tests.support.depth import Harm
from tests.support.embedding_here import EngineInProcess, decoders_here, embed_here, examine_here
from tests.support.outcomes import age, did
from tests.support.pictures import save_pictures
from tests.support.small_network import make_small_collection, small_export

TESTS = Path(__file__).parent

# What runs in the background is told to ignore Ctrl-C, and so would be all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make test` ask for less, and `make test-slow` for more."""
    harming.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Set how many examples of a property are tried."""
    harming.set_up(config)


def pytest_xdist_auto_num_workers() -> int:
    """Run three workers on two cores, for tests often wait: for the disk, or for a process."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + (cores + 1) // 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `make test` leaves to `make test-all`; begin with what needs a browser.

    Workers of xdist take over tests from the ends of each other's lists: so one has all of those.
    """
    harming.choose(config, items)
    items.sort(key=lambda item: "browser" not in getattr(item, "fixturenames", ()))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Say what the collections of the tests have been through."""
    harming.show(terminalreporter, config, passed=exitstatus == pytest.ExitCode.OK)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep the environment variables of who runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("IMGSEARCH_")]:
        if name != "IMGSEARCH_DATA":
            monkeypatch.delenv(name)
    state = tmp_path_factory.getbasetemp() / "state"  # of imgsearch, such as its journal
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    kept = tmp_path_factory.getbasetemp() / "kept"  # networks that were exported in this process
    monkeypatch.setattr(networks, "user_cache", lambda name: kept / name)


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    """Let Ctrl-C interrupt the tests that follow a command that was interrupted in this process."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files in the trash, which is that of a user whose home is `tmp_path`."""
    if sys.platform == "darwin":
        pytest.skip("the trash of macOS is where it is")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "send2trash"]:
        monkeypatch.delitem(sys.modules, name)  # it reads the environment when it is imported
    monkeypatch.setitem(sys.modules, "gi", None)  # the desktop's own library, which does as well
    return tmp_path / "data" / "Trash" / "files"


@pytest.fixture
def uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no coverage in processes: its own file is written, and may fail, as they end."""
    _do_not_cover_processes(monkeypatch)


@pytest.fixture(autouse=True)
def _covered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure coverage in the processes of a few folders only, for it doubles the time they take.

    These have a test of all that runs in a process of its own: commands, workers and servers.
    """
    if not any((TESTS / folder) in request.path.parents for folder in ("cli", "embedding", "web")):
        _do_not_cover_processes(monkeypatch)


def _do_not_cover_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images."""
    folder = os.environ.get("IMGSEARCH_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("IMGSEARCH_DATA does not name the folder of real images")
    return Path(folder).resolve()  # as the paths of hits are


@pytest.fixture(scope="session")
def harm(pytestconfig: pytest.Config) -> Harm:
    """How much harm to do, and a place to count it."""
    return Harm(pytestconfig)


@pytest.fixture
def several_threads() -> Iterator[None]:
    """Let Faiss search with several threads, as it does outside of the tests."""
    faiss.omp_set_num_threads(4)
    yield
    faiss.omp_set_num_threads(1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 pictures, for reading only."""
    folder = tmp_path_factory.mktemp("photos")
    save_pictures(folder, 40)
    return folder


@pytest.fixture(scope="session")
def mobilenet_empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty collection, made with MobileNetV2, to be copied; one for all workers of xdist."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory = base / "mobilenet" / "collection"
    with FileLock(base / "mobilenet.lock"):
        if not directory.exists():
            Collection.create(directory, device="cpu").close()
    return directory


@pytest.fixture
def quick_export(harm: Harm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `make test` make collections with the small network: torch need not export any."""
    if harm.fast:
        for name, stand_in in small_export().items():
            monkeypatch.setattr(create, name, stand_in)


def _index_in_one_commit(directory: Path, photos: Path, engine: Engine | None = None) -> None:
    """Index images so that there is one shard, and no file left over, on a busy machine too."""
    with Collection.open(directory, device="cpu") as collection:
        collection.index([photos], policy=FoldPolicy(commit_seconds=3600.0), engine=engine)


@pytest.fixture(scope="session")
def photos_indexed(
    mobilenet_empty: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A collection of `photos`, made with MobileNetV2, for reading only."""
    directory = tmp_path_factory.mktemp("photos_indexed") / "collection"
    shutil.copytree(mobilenet_empty, directory)
    _index_in_one_commit(directory, photos)
    return directory


@pytest.fixture(scope="session")
def _small_empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_collection(tmp_path_factory.mktemp("small") / "collection")


@pytest.fixture(scope="session")
def _small_indexed(
    _small_empty: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("small_indexed") / "collection"
    shutil.copytree(_small_empty, directory)
    _index_in_one_commit(directory, photos, EngineInProcess(ahead=100))
    return directory


@pytest.fixture(scope="session")
def _lived_in(tmp_path_factory: pytest.TempPathFactory) -> LivedIn:
    return live_in(tmp_path_factory.mktemp("lived_in"))


@pytest.fixture
def lived_in(_lived_in: LivedIn, tmp_path: Path) -> LivedIn:
    """A collection that has lived, to be changed; its photos are for reading only."""
    directory = shutil.copytree(_lived_in.directory, tmp_path / "lived in")
    return LivedIn(directory, _lived_in.photos, _lived_in.held)


@pytest.fixture
def empty(_small_empty: Path, tmp_path: Path) -> Path:
    """The directory of an empty collection with the small network, to be changed."""
    return shutil.copytree(_small_empty, tmp_path / "empty")


@pytest.fixture
def indexed(_small_indexed: Path, tmp_path: Path) -> Path:
    """The directory of a collection of `photos` with the small network, to be changed."""
    return shutil.copytree(_small_indexed, tmp_path / "indexed")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of 12 images, 4 of them in a folder below."""
    folder = tmp_path / "tree"
    save_pictures(folder, 8)
    save_pictures(folder / "below", 4, first=8)
    return folder


@pytest.fixture
def collection(empty: Path) -> Iterator[Collection]:
    """The empty collection, opened."""
    with Collection.open(empty, device="cpu") as opened:
        yield opened


@pytest.fixture
def indexed_tree(collection: Collection, tree: Path) -> Path:
    """The tree, long since written, and in `collection`."""
    age(tree)
    assert did(collection.index([tree])) == {"indexed": 12}
    return tree


@pytest.fixture
def other_tree(collection: Collection, tmp_path: Path) -> Path:
    """Another folder, of 20 pictures, long since written, and in `collection`."""
    save_pictures(tmp_path / "other", 20, first=50)
    age(tmp_path / "other")
    assert did(collection.index([tmp_path / "other"])) == {"indexed": 20}
    return tmp_path / "other"


@pytest.fixture
def embedded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `LocalEngine` embed in this process, whoever makes it."""
    monkeypatch.setattr(engine, "embed_files", embed_here())


@pytest.fixture
def _no_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let indexing and verification embed in this process: no worker has to start."""
    request.getfixturevalue("embedded_here")
    for module in (sample, looking, gallery_page):
        monkeypatch.setattr(module, "decoders", decoders_here)


@pytest.fixture
def here(_no_workers: None) -> None:
    """Let indexing and verification embed in this process: no worker has to start."""


@pytest.fixture(autouse=True)
def _here_in_make_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no workers in `make test`, but for tests of what becomes of them."""
    fast = request.config.getoption("fast")
    if fast and request.node.get_closest_marker("processes") is None:
        request.getfixturevalue("_no_workers")
        examine_here(monkeypatch)


@pytest.fixture
def opened(indexed: Path) -> Iterator[Collection]:
    """The collection of `photos`, opened."""
    with Collection.open(indexed, device="cpu") as collection:
        yield collection


@pytest.fixture
def ivf(opened: Collection) -> Collection:
    """The collection of `photos`, with an index of 5 lists."""
    opened.index(nlist=5)
    return opened


@pytest.fixture
def run(tmp_path: Path, harm: Harm, request: pytest.FixtureRequest) -> Run:
    """`python -m imgsearch`, in `tmp_path` unless told otherwise; `make test` runs it here."""
    here = harm.fast and request.node.get_closest_marker("processes") is None

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Ended:
        if here and before is None:
            return run_here(*arguments, cwd=cwd or tmp_path, env=env)
        command = imgsearch_command(*arguments)
        return run_python(command, cwd=cwd or tmp_path, env=env, before=before)

    return run


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in this process, in `tmp_path`: `invoke("query", path, env={...})`."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, list(map(str, arguments)), env=env, catch_exceptions=False)

    return invoke
