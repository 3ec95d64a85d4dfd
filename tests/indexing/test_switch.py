"""Another network for an old collection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from imgsearch.collection import Collection
from imgsearch.embedding.pipeline import Outcome
from imgsearch.errors import GoneError, InputError, ModelError, NoCollectionError, SettingError
from imgsearch.indexing import create
from imgsearch.maintenance.verify import verify
from imgsearch.storage.layout import Layout
from tests.support.embedding_here import EngineInProcess
from tests.support.integrity import BUSY, check, check_tidy
from tests.support.outcomes import age
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import small_export

Invoke = Callable[..., Result]

OTHER = "efficientnet_lite0"

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stand_in in small_export().items():
        monkeypatch.setattr(create, name, stand_in)


@pytest.fixture
def pictures(empty: Path, tmp_path: Path) -> list[Path]:
    """Pictures in the empty collection, two of which were taken out again."""
    paths = save_pictures(tmp_path / "pictures", 40)
    age(tmp_path / "pictures")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "pictures"], policy=BUSY, nlist=4)
        collection.remove([paths[3], paths[30]])
        assert len(collection) == 38
    return [path for number, path in enumerate(paths) if number not in (3, 30)]


def model_of(directory: Path) -> str:
    with Collection.open(directory, device="cpu") as collection:
        return collection.info().model.name


def switch(directory: Path, **options: Any) -> Any:
    return Collection.switch(directory, model=OTHER, device="cpu", policy=BUSY, **options)


def test_all_images_are_embedded_again_and_keep_their_ids(
    empty: Path, pictures: list[Path]
) -> None:
    with Collection.open(empty, device="cpu") as collection:
        before = {entry.path: (entry.id, entry.digest, entry.facts) for entry in collection}
        old = collection.embeddings()
    report = switch(empty)
    assert (report.before, report.after, report.images) == ("mobilenet_v2", OTHER, 38)
    assert (report.resumed, report.left_out, report.kept) == (0, 0, None)
    with Collection.open(empty, device="cpu") as collection:
        info = collection.info()
        assert (info.model.name, info.images, info.settings.nlist) == (OTHER, 38, 4)
        assert {e.path: (e.id, e.digest, e.facts) for e in collection} == before
        assert abs(collection.embeddings() - old[:, ::-1]).max() < 1e-6
        assert info.segments
        assert info.rank == "collection"
        assert len(collection.entries.hashes(collection.ids.tolist())) == 38
    assert check(empty).keys() == set(map(str, pictures))
    assert verify(empty).damages == ()
    check_tidy(empty)


def test_new_images_are_indexed_with_the_new_network(
    empty: Path, pictures: list[Path], tmp_path: Path
) -> None:
    switch(empty)
    more = save_pictures(tmp_path / "more", 3, first=80)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "more"])
        assert len(collection) == 41
        (hit,) = collection.query(more[0], k=1, include_self=True)
        assert (hit.path, hit.distance < 1e-3) == (str(more[0]), True)
    assert check(empty).keys() == set(map(str, [*pictures, *more]))


class _Stopping(EngineInProcess):
    """An engine that is interrupted after a number of images."""

    def __init__(self, images: int) -> None:
        super().__init__(seed=1)
        self.left = images

    def embed_files(self, paths: Iterable[str], *args: Any, **options: Any) -> Any:
        def some() -> Iterator[Outcome]:
            for outcome in super(_Stopping, self).embed_files(paths, *args, **options):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
                yield outcome

        return some()


def test_an_interrupted_switch_resumes_and_meanwhile_the_old_network_answers_and_indexes(
    empty: Path, pictures: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        switch(empty, engine=_Stopping(25))
    assert model_of(empty) == "mobilenet_v2"
    more = save_pictures(tmp_path / "more", 3, first=80)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "more"])  # by the old network
        collection.remove([pictures[0]])
        assert len(collection) == 40
    report = switch(empty, engine=EngineInProcess(seed=1))
    assert (report.images, report.resumed, report.left_out) == (40, 24, 0)
    assert model_of(empty) == OTHER
    assert check(empty).keys() == set(map(str, [*pictures[1:], *more]))
    assert verify(empty).damages == ()
    check_tidy(empty)


def test_the_old_collection_can_be_kept_and_is_whole(empty: Path, pictures: list[Path]) -> None:
    report = switch(empty, keep_old=True)
    kept = empty.with_name("empty-mobilenet_v2")
    assert report.kept == str(kept)
    assert (model_of(kept), model_of(empty)) == ("mobilenet_v2", OTHER)
    for directory in (kept, empty):
        assert check(directory).keys() == set(map(str, pictures))
        assert verify(directory).damages == ()
        check_tidy(directory)  # another run of the one deletes no file of the other
    empty.with_name(f"empty-{OTHER}").mkdir()
    with pytest.raises(InputError, match="would be kept, is already there; move it away"):
        Collection.switch(empty, model="mobilenet_v2", keep_old=True)
    assert model_of(empty) == OTHER


def test_a_file_that_cannot_be_read_keeps_the_old_network(
    empty: Path, pictures: list[Path]
) -> None:
    pictures[20].rename(pictures[20].with_name("away"))
    with pytest.raises(GoneError, match="nothing was switched, and the collection still answers"):
        switch(empty)
    assert model_of(empty) == "mobilenet_v2"
    assert check(empty).keys() == set(map(str, pictures))
    pictures[20].with_name("away").rename(pictures[20])
    assert switch(empty).resumed == 20
    assert check(empty).keys() == set(map(str, pictures))


def test_a_file_that_has_changed_is_left_to_the_next_run(empty: Path, pictures: list[Path]) -> None:
    picture(99).save(pictures[20])
    report = switch(empty)
    assert (report.images, report.left_out) == (37, 1)
    assert check(empty).keys() == {*map(str, pictures)} - {str(pictures[20])}
    with Collection.open(empty, device="cpu") as collection:
        collection.index()
    assert check(empty).keys() == set(map(str, pictures))


def test_who_had_it_open_is_told_to_open_it_again(empty: Path, pictures: list[Path]) -> None:
    with (
        Collection.open(empty, device="cpu") as collection,
        Collection.open(empty, device="cpu") as unused,
    ):
        embedding = collection.embed([pictures[0]])
        assert collection.query(embedding[0], k=1)
        switch(empty)
        for opened, query in ((collection, embedding[0]), (unused, pictures[0])):
            with pytest.raises(NoCollectionError, match=r"was switched to .*; open it again"):
                opened.query(query, k=1)


def test_a_network_that_cannot_be_had_changes_nothing(
    empty: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModelError("cannot fetch the weights")

    monkeypatch.setattr(create, "export", fail)
    with pytest.raises(ModelError, match="cannot fetch"):
        switch(empty)
    monkeypatch.undo()
    for name, stand_in in small_export().items():
        monkeypatch.setattr(create, name, stand_in)
    with pytest.raises(SettingError, match="was made with mobilenet_v2 and these weights"):
        Collection.switch(empty, model="mobilenet_v2", device="cpu")
    assert model_of(empty) == "mobilenet_v2"
    assert check(empty).keys() == set(map(str, pictures))


@pytest.mark.usefixtures("pictures")
def test_the_command_switches_and_says_so(invoke: Invoke, empty: Path) -> None:
    ended = invoke("-c", empty, "index", "--model", OTHER, "--keep-old", "--json")
    assert ended.exit_code == 0, ended.stderr
    assert f"made with mobilenet_v2, not {OTHER}: all images are embedded again" in ended.stderr
    assert f"switched from mobilenet_v2 to {OTHER}: 38 images" in ended.stderr
    told = json.loads(ended.stdout)
    assert told["switched"]["images"] == 38
    assert told["unchanged"] == 38
    assert model_of(empty) == OTHER
    again = invoke("-c", empty, "index", "--model", OTHER)
    assert (again.exit_code, "switched" in again.stderr) == (0, False)


def test_only_a_network_that_the_command_itself_names_is_switched_to(
    invoke: Invoke, empty: Path, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "settings.toml").write_text(f'[index]\nmodel = "{OTHER}"\n')
    ended = invoke("--config", tmp_path / "settings.toml", "-c", empty, "index")
    assert ended.exit_code == 2
    assert f"made with mobilenet_v2, not {OTHER}" in ended.stderr
    assert len(pictures) == 38
    assert model_of(empty) == "mobilenet_v2"


def test_an_unfinished_switch_is_given_up_by_naming_the_old_network(
    invoke: Invoke, empty: Path, pictures: list[Path]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        switch(empty, engine=_Stopping(25))
    told = invoke("-c", empty, "index")
    assert f"a switch to {OTHER} is unfinished" in told.stderr
    ended = invoke("-c", empty, "index", "--model", "mobilenet_v2")
    assert ended.exit_code == 0
    assert "was given up" in ended.stderr
    assert not Layout(empty).next.directory.exists()
    assert check(empty).keys() == set(map(str, pictures))
