"""What a collection keeps, wherever it is: one suite, run over each kind of place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from imgsearch.ann.vectors import Vectors
from imgsearch.collection import Collection
from imgsearch.errors import GoneError, InputError, NoImageError, SettingError
from imgsearch.querying.hits import Answer
from tests.support.embedding_here import EngineInProcess
from tests.support.injection import indexing_with
from tests.support.memory_urls import bucket
from tests.support.outcomes import age, did
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import random_embeddings

__all__ = ["Contract"]

NLIST = 6
QUERIES = random_embeddings(25, seed=7)
SHORT = 1e-3  # distance: what two ways to compute it may differ by


class Contract:
    """A subclass has a fixture `location`: of an empty collection with the small network."""

    #: Pictures from which on all kinds of places use lists.
    enough = 60

    @pytest.fixture(autouse=True)
    def _embedded_in_this_process(self) -> Iterator[None]:
        with indexing_with(engine=EngineInProcess()):
            yield

    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        """A folder of 60 pictures, long since written, in two sub-folders."""
        save_pictures(tmp_path / "pictures" / "a", 40)
        save_pictures(tmp_path / "pictures" / "b", 20, first=40)
        age(tmp_path / "pictures")
        return tmp_path / "pictures"

    def test_all_lists_are_as_good_as_brute_force(self, location: str, pictures: Path) -> None:
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures], nlist=NLIST)
            for answers in (
                collection.answer(QUERIES, nprobe=NLIST),
                collection.answer(QUERIES, exact=True),
            ):
                _assert_equal(answers, _brute_force(collection, pictures, QUERIES, 10))

    def test_images_are_known_by_their_ids(self, location: str, pictures: Path) -> None:
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures])
            entries = collection.entries
            everything = entries.after(0, 100)
            assert {entry.path for entry in everything} == {
                str(path) for path in pictures.rglob("*") if path.is_file()
            }
            ids = [entry.id for entry in everything]
            assert ids == sorted(ids)
            assert entries.after(ids[19], 20) == everything[20:40]
            assert entries.after(ids[-1], 20) == []
            assert entries.get(ids[7]) == everything[7]
            assert entries.find([ids[3], 1 << 62]) == {ids[3]: everything[3]}
            some = [ids[9], ids[2], ids[40]]
            expected = collection.embed([entries.get(id_).path for id_ in some])
            np.testing.assert_allclose(entries.embeddings(some), expected, atol=1e-5)
            with pytest.raises(NoImageError, match=str(1 << 62)):
                entries.get(1 << 62)
            with pytest.raises(NoImageError, match=str(1 << 62)):
                entries.embeddings([ids[0], 1 << 62])
            assert collection.remove(everything[2].path) == 1
            with pytest.raises(NoImageError, match=str(ids[2])):
                entries.embeddings([ids[9], ids[2]])
            weighed = collection.combine(expected, weights=[1, 2, 3])
            assert weighed.shape == expected[0].shape

    def test_a_closed_collection_says_so(self, location: str, pictures: Path) -> None:
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures])
        collection.close()  # again, which does no harm
        uses: list[Callable[[], object]] = [
            lambda: collection.answer(QUERIES[:1]),
            lambda: collection.index([pictures]),
            lambda: collection.remove(pictures / "a"),
            collection.info,
            lambda: collection.entries.after(0, 10),
            lambda: collection.entries.embeddings([1]),
        ]
        for use in uses:
            with pytest.raises(InputError, match="is closed; open it again"):
                use()

    def test_recall_grows_with_nprobe(self, location: str, pictures: Path) -> None:
        with Collection.open(location, device="cpu") as collection:
            save_pictures(pictures / "b", self.enough - 60, first=60)
            collection.index([pictures], nlist=NLIST)
            true = _brute_force(collection, pictures, QUERIES, 10)
            recalls = [
                _recall(collection.answer(QUERIES, nprobe=nprobe), true)
                for nprobe in range(1, NLIST + 1)
            ]
        assert recalls == sorted(recalls)
        assert recalls[0] < recalls[-1] == 1

    def test_the_promise_is_kept_for_queries_unlike_the_images(
        self, location: str, pictures: Path
    ) -> None:
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures], nlist=NLIST, recall=0.9)
            info = collection.info()
            assert info.settings.recall == 0.9
            assert info.ivf is not None
            assert info.ivf.nlist == NLIST
            assert info.ivf.curve[-1].recall_bound == 1
            true = _brute_force(collection, pictures, QUERIES, 10)
            assert _recall(collection.answer(QUERIES), true) >= 0.9

    def test_to_index_again_changes_nothing(self, location: str, pictures: Path) -> None:
        with Collection.open(location, device="cpu") as collection:
            assert did(collection.index([pictures])) == {"indexed": 60}
            before = collection.answer(QUERIES, exact=True)
            assert did(collection.index([pictures])) == {"unchanged": 60}
            assert collection.info().images == 60
            assert _paths(collection.answer(QUERIES, exact=True)) == _paths(before)

    def test_patterns_leave_files_out_and_let_them_in_again(
        self, location: str, pictures: Path
    ) -> None:
        save_pictures(pictures / "@eaDir", 2, first=70)
        (pictures / "a" / "._0000.jpg").write_bytes(b"\0\5\x16\7" + b"\0" * 60)
        with Collection.open(location, device="cpu") as collection:
            report = collection.index([pictures])
            assert did(report) == {"indexed": 60, "skipped": 1}
            assert report.skipped_kinds == (("AppleDouble", 1),)
            report = collection.index(exclude=["b/"])
            assert (did(report), report.left_out) == ({"unchanged": 40, "skipped": 1}, 20)
            assert collection.info().images == 40
            assert collection.info().left_out[-1] == "b/"
        with Collection.open(location, device="cpu") as collection:
            assert did(collection.index([pictures])) == {"unchanged": 40, "skipped": 1}
            back = did(collection.index(include=["b/"]))
            assert back.pop("indexed", 0) + back.pop("copied", 0) == 20
            assert back == {"unchanged": 40, "skipped": 1}
            with pytest.raises(SettingError, match="there is no such pattern"):
                collection.index(include=["b/"])

    def test_to_read_all_files_again_changes_nothing_and_any_time_will_do(
        self, location: str, pictures: Path
    ) -> None:
        for name, seconds in (("0000.jpg", 15_000_000_000), ("0001.png", -11_644_473_600)):
            os.utime(pictures / "a" / name, (seconds, seconds))
        with Collection.open(location, device="cpu") as collection:
            assert did(collection.index([pictures])) == {"indexed": 60}
            assert did(collection.index(rehash=True)) == {"unchanged": 60}
            assert did(collection.index()) == {"unchanged": 60}

    def test_files_may_be_at_urls(self, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with bucket() as files, Collection.open(location, device="cpu") as collection:
            for seed in range(6):
                files.put(f"{seed}.png", seed)
            assert did(collection.index([files.url])) == {"indexed": 6}
            assert collection.info().roots == (files.url,)
            files.put("moved/0.png", 0)
            files.drop("0.png")
            files.drop("1.png")
            assert did(collection.index()) == {"moved": 1, "unchanged": 4, "removed": 1}
            moved = files.at("moved/0.png")
            (answer,) = collection.answer([moved], k=6, exact=True, include_self=True)
            assert answer.hits[0].path == moved
            assert {hit.path for hit in answer.hits} == {
                files.at(name) for name in ("moved/0.png", "2.png", "3.png", "4.png", "5.png")
            }
            assert collection.remove([files.at("moved")]) == 1
            with monkeypatch.context() as down:
                for name in ("ls", "info", "isdir"):
                    down.setattr(MemoryFileSystem, name, _refuse)
                with pytest.raises(GoneError, match="cannot be listed: its images are kept"):
                    collection.index(prune=True)
            assert did(collection.index()) == {"unchanged": 4}
            files.clear()
            with pytest.raises(GoneError, match="are kept"):
                collection.index()
            assert collection.info().images == 4

    def test_what_is_taken_out_vanishes_and_stays_out(self, location: str, pictures: Path) -> None:
        first = _files(pictures)[0]
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures], nlist=NLIST)
            assert collection.remove([first]) == 1
            assert collection.remove([pictures / "b"]) == 20
            assert collection.info().images == 39
            collection.index()
            found = collection.answer(QUERIES, k=60, exact=True)
            assert all(len(answer.hits) == 39 for answer in found)
            assert not any(str(first) in paths for paths in _paths(found))
            with pytest.raises(InputError, match="nothing was removed"):
                collection.remove([pictures / "nonsense"])
            collection.index([first])
            assert collection.info().images == 40
            gone = collection.id_of(first)
            assert collection.remove_ids([gone]) == 1
            assert collection.remove_ids([gone]) == 0
            collection.index()
            assert collection.info().images == 39

    def test_files_that_are_deleted_changed_or_moved_are_followed(
        self, location: str, pictures: Path
    ) -> None:
        gone, changed, moved = _files(pictures)[:3]
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures])
            gone.unlink()
            picture(500).save(changed)
            moved.rename(pictures / "b" / f"moved{moved.suffix}")
            report = did(collection.index())
            assert report == {"indexed": 1, "moved": 1, "unchanged": 57, "removed": 1}
            true = _brute_force(collection, pictures, QUERIES, 10)
            _assert_equal(collection.answer(QUERIES, exact=True), true)

    def test_a_folder_that_is_missing_loses_nothing(self, location: str, pictures: Path) -> None:
        away = pictures.with_name("away")
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures])
            pictures.rename(away)
            with pytest.raises(GoneError):
                collection.index()
            assert collection.info().images == 60
            away.rename(pictures)
            assert did(collection.index()) == {"unchanged": 60}
            shutil.rmtree(pictures)
            assert did(collection.index(prune=True)) == {"removed": 60}
            assert collection.info().images == 0
            assert collection.answer(QUERIES)[0].hits == ()

    def test_names_that_are_no_utf_8_and_names_that_mean_something_elsewhere(
        self, location: str, tmp_path: Path
    ) -> None:
        folder = tmp_path / 'odd "names" % _ \\'
        folder.mkdir()
        names = ["a'b\".png", "ünï ©.png", "c%_d\\e.png"]
        for seed, name in enumerate(names):
            picture(seed).save(folder / name)
        raw = bytes(folder) + b"/\xff\xfe.png"
        Path(str(folder / names[0])).rename(raw.decode("utf-8", "surrogateescape"))
        with Collection.open(location, device="cpu") as collection:
            assert did(collection.index([folder])) == {"indexed": 3}
            query = str(folder / names[1])
            (answer,) = collection.answer([query])
            assert query not in [hit.path for hit in answer.hits]
            assert raw.decode("utf-8", "surrogateescape") in [hit.path for hit in answer.hits]
            assert collection.remove([folder / names[2]]) == 1

    def test_opened_again_it_has_all(self, location: str, pictures: Path) -> None:
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures], nlist=NLIST)
            before, info = collection.answer(QUERIES, nprobe=NLIST), collection.info()
        with Collection.open(location, device="cpu") as collection:
            assert _paths(collection.answer(QUERIES, nprobe=NLIST)) == _paths(before)
            assert collection.info().ivf == info.ivf
            assert collection.info().roots == info.roots
            with pytest.raises(SettingError, match="made with mobilenet_v2"):
                collection.check_model("inception_v3", None)

    def test_labelled_images_are_evaluated_alike(self, location: str, pictures: Path) -> None:
        with Collection.open(location, device="cpu") as collection:
            collection.index([pictures], nlist=NLIST)
            found = collection.evaluate(pictures, nprobe=NLIST)
            few = collection.evaluate(pictures, nprobe=1)
        assert (found.images, found.queries, found.classes) == (60, 60, 2)
        assert found.index is not None
        assert found.index == found.exact
        assert few.index is not None
        assert few.index.mean_average_precision.mean <= found.exact.mean_average_precision.mean


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _brute_force(
    collection: Collection, folder: Path, queries: Vectors, k: int
) -> list[list[tuple[float, str]]]:
    files = [str(path) for path in _files(folder)]
    distances = np.linalg.norm(queries[:, None] - collection.embed(files)[None], axis=2)
    return [sorted(zip(row.tolist(), files, strict=True))[:k] for row in distances]


def _assert_equal(answers: Sequence[Answer], true: list[list[tuple[float, str]]]) -> None:
    """Check paths and distances; two that are equally far may stand in either order."""
    for answer, row in zip(answers, true, strict=True):
        assert len(answer.hits) == len(row)
        for hit, (distance, path) in zip(answer.hits, row, strict=True):
            assert hit.distance == pytest.approx(distance, abs=SHORT)
            tied = {other for near, other in row if abs(near - distance) < SHORT}
            assert hit.path == path or hit.path in tied


def _recall(answers: Sequence[Answer], true: list[list[tuple[float, str]]]) -> float:
    shares = [
        len({hit.path for hit in answer.hits} & {path for _, path in row}) / len(row)
        for answer, row in zip(answers, true, strict=True)
    ]
    return float(np.mean(shares))


def _paths(answers: Sequence[Answer]) -> list[list[str]]:
    return [[hit.path for hit in answer.hits] for answer in answers]


def _refuse(*_: object, **__: object) -> None:
    raise ConnectionError("refused")
