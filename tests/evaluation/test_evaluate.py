"""`imgsearch.evaluate`: labelled images as queries, by exact search and by the index."""

from __future__ import annotations

import csv
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from imgsearch import (
    BusyError,
    Collection,
    DamagedError,
    Evaluation,
    InputError,
    NoCollectionError,
    SettingError,
    evaluate,
)
from imgsearch.evaluation import evaluate as evaluating
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.querying.hits import Hit
from tests.support.pictures import save_pictures


def write_labels(path: Path, labels: dict[Path, str]) -> Path:
    """Write a CSV file of labels."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *labels.items()])
    return path


def labels_of(photos: Path, classes: int = 4) -> dict[Path, str]:
    """Return a label for each of the pictures, by turns."""
    paths = sorted(photos.iterdir())
    return {path: f"class {number % classes}" for number, path in enumerate(paths)}


def means(found: Evaluation, way: str) -> list[float]:
    """Return P@1, P@k, recall@k and mAP of "exact" or "index"."""
    measures = getattr(found, way)
    return [getattr(measures, field.name).mean for field in fields(measures)]


def by_query(labels: dict[Path, str], k: int, answers: list[list[Hit]]) -> list[float]:
    """Return the measures of what `query` answered with all hits, computed one by one."""
    rows = []
    for path, hits in zip(labels, answers, strict=True):
        right = [labels[Path(hit.path)] == labels[path] for hit in hits]
        total = list(labels.values()).count(labels[path]) - 1
        precisions = [sum(right[:rank]) / rank for rank in range(1, len(right) + 1)]
        average = sum(p for p, is_right in zip(precisions, right, strict=True) if is_right) / total
        rows.append([float(right[0]), sum(right[:k]) / k, sum(right[:k]) / total, average])
    return [float(mean) for mean in np.mean(rows, axis=0)]


@pytest.fixture
def photo_labels(photos: Path, tmp_path: Path) -> Path:
    return write_labels(tmp_path / "labels.csv", labels_of(photos))


def test_exact_search_is_measured_as_query_answers(
    opened: Collection, indexed: Path, photos: Path, photo_labels: Path
) -> None:
    labels = labels_of(photos)
    answers = opened.query_many(list(labels), k=39, exact=True)
    found = evaluate(indexed, photo_labels, k=5)
    assert means(found, "exact") == pytest.approx(by_query(labels, 5, answers), abs=1e-9)
    assert (found.images, found.queries, found.classes, found.k) == (40, 40, 4, 5)
    assert (found.labelled, found.missing, found.unlabelled, found.alone) == (40, (), 0, 0)
    for estimate in (found.exact.precision_at_1, found.exact.mean_average_precision):
        assert estimate.low <= estimate.mean <= estimate.high


def test_without_an_index_there_is_nothing_to_measure_of_it(
    indexed: Path, photo_labels: Path
) -> None:
    found = evaluate(indexed, photo_labels)
    assert found.index is None
    assert (found.searched.exact, found.searched.nprobe) == (40, (0, 0))


@pytest.mark.usefixtures("ivf")
@pytest.mark.parametrize("options", [{"recall": 1.0}, {"nprobe": 5}, {"nprobe": 99}])
def test_an_index_that_scans_all_lists_is_exact(
    indexed: Path, photo_labels: Path, options: dict[str, float]
) -> None:
    found = evaluate(indexed, photo_labels, k=3, **options)  # type: ignore[arg-type]  # mixed options
    assert found.index == found.exact


@pytest.mark.parametrize("nprobe", [1, 2, 4])
def test_the_index_is_measured_as_query_answers(
    ivf: Collection, indexed: Path, photos: Path, photo_labels: Path, nprobe: int
) -> None:
    labels = labels_of(photos)
    # By its number of lists alone, a query gives what they hold, however many hits are wanted.
    answers = ivf.query_many(list(labels), k=39, nprobe=nprobe)
    assert min(map(len, answers)) < 39
    found = evaluate(indexed, photo_labels, k=2, nprobe=nprobe)
    assert means(found, "index") == pytest.approx(by_query(labels, 2, answers), abs=1e-9)
    assert means(found, "index")[3] < means(found, "exact")[3]
    assert (found.searched.ivf, found.searched.nprobe) == (40, (nprobe, nprobe))


def test_the_index_at_its_promise_gives_the_hits_of_query(
    ivf: Collection, indexed: Path, photos: Path, photo_labels: Path
) -> None:
    ivf.index(nlist=4, policy=FoldPolicy(judged_from=1))  # or 40 images promise nothing
    labels = labels_of(photos)
    wide = 0
    for k, recall in ((1, 0.5), (5, None), (8, 0.01), (30, 0.01)):
        answers = ivf.query_many(list(labels), k=k, recall=recall)
        found = evaluate(indexed, photo_labels, k=k, recall=recall)
        assert means(found, "index")[:3] == pytest.approx(
            by_query(labels, k, answers)[:3], abs=1e-9
        )
        searched = found.searched
        assert searched.ivf + searched.wide + searched.exact == 40
        wide += searched.wide
    assert wide


def test_images_that_no_list_holds_yet_are_found_by_the_index(
    ivf: Collection, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    more = save_pictures(tmp_path / "more", 6, first=100)
    ivf.index([tmp_path / "more"])
    assert ivf.info().tail == 6
    labels = labels_of(photos) | dict.fromkeys(more, "class 0")
    answers = ivf.query_many(list(labels), k=45, nprobe=1)
    found = evaluate(indexed, write_labels(tmp_path / "all.csv", labels), nprobe=1, k=3)
    assert means(found, "index") == pytest.approx(by_query(labels, 3, answers), abs=1e-9)


def test_images_without_a_label_take_no_rank(
    opened: Collection, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    labels = dict(list(labels_of(photos, 2).items())[:10])
    found = evaluate(indexed, write_labels(tmp_path / "few.csv", labels), k=3)
    left_out = [[path for path in photos.iterdir() if path not in labels]] * 10
    answers = opened.query_many(list(labels), k=9, exact=True, exclude=left_out)
    assert (found.images, found.unlabelled) == (10, 30)
    assert means(found, "exact") == pytest.approx(by_query(labels, 3, answers), abs=1e-9)


def test_what_is_removed_is_no_hit(
    ivf: Collection, indexed: Path, photos: Path, photo_labels: Path
) -> None:
    gone = sorted(photos.iterdir())[:5]
    ivf.remove(gone)
    found = evaluate(indexed, photo_labels)
    assert (found.images, found.labelled) == (35, 40)
    assert found.missing == tuple(map(str, gone))
    assert not {str(path) for path in gone} & {
        hit.path for query in found.worst for hit in query.hits
    }


def test_the_only_image_of_a_class_is_a_hit_and_no_query(
    indexed: Path, photos: Path, tmp_path: Path
) -> None:
    first, second, third, *_ = sorted(photos.iterdir())
    labels = {first: "a", second: "a", third: "alone"}
    found = evaluate(indexed, write_labels(tmp_path / "labels.csv", labels), k=1)
    assert (found.images, found.queries, found.alone, found.classes) == (3, 2, 1, 2)
    assert {query.path for query in found.worst} <= {str(first), str(second)}


def test_the_worst_queries_come_with_their_hits(
    opened: Collection, indexed: Path, photos: Path, photo_labels: Path
) -> None:
    labels = labels_of(photos)
    worst = evaluate(indexed, photo_labels, k=4).worst
    assert len(worst) == 10
    values = [query.average_precision for query in worst]
    assert values == sorted(values)
    for query in worst:
        hits = opened.query(query.path, k=4, exact=True)
        assert [hit.path for hit in query.hits] == [hit.path for hit in hits]
        assert [hit.rank for hit in query.hits] == [1, 2, 3, 4]
        assert query.label == labels[Path(query.path)]
        for mine, hit in zip(query.hits, hits, strict=True):
            assert mine.similarity == pytest.approx(hit.similarity, abs=1e-6)
            assert mine.label == labels[Path(mine.path)]
            assert mine.right == (mine.label == query.label)


def test_queries_that_find_their_class_are_not_among_the_worst(
    collection: Collection, empty: Path, tmp_path: Path
) -> None:
    (first, other) = save_pictures(tmp_path / "pictures", 2)
    for path in (first, other):
        shutil.copy(path, path.with_stem("copy of " + path.stem))
    collection.index([tmp_path / "pictures"])
    paths = sorted((tmp_path / "pictures").iterdir())
    labels = {path: path.name[-8:] for path in paths}
    found = evaluate(empty, write_labels(tmp_path / "labels.csv", labels), k=1)
    assert means(found, "exact") == [1, 1, 1, 1]
    assert found.worst == ()


def test_blocks_of_any_size_give_the_same(
    indexed: Path, photo_labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(indexed, photo_labels)
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(evaluating, "_CELLS", 7 * 40)
    found = evaluate(indexed, photo_labels, progress=lambda *done: calls.append(done))
    assert (found.exact, found.worst) == (expected.exact, expected.worst)
    assert calls[-1] == (40, 40)
    assert len(calls) >= 6


def test_a_folder_of_classes_reached_through_a_link_is_known(
    collection: Collection, empty: Path, tree: Path, tmp_path: Path
) -> None:
    save_pictures(tree / "above", 3, first=20)
    collection.index([tree])
    (tmp_path / "link").symlink_to(tree)
    found = evaluate(empty, tmp_path / "link", k=2)
    assert (found.images, found.classes, found.missing) == (7, 2, ())
    assert found.unlabelled == 8  # the files directly in the folder are of no class


def test_an_image_with_two_labels_is_refused(indexed: Path, photos: Path, tmp_path: Path) -> None:
    image = min(photos.iterdir())
    (tmp_path / "link").symlink_to(photos)
    labels = write_labels(
        tmp_path / "labels.csv", {image: "a", tmp_path / "link" / image.name: "b"}
    )
    with pytest.raises(InputError, match=r"line 3: .* is 'b' here, and the same image is 'a' in"):
        evaluate(indexed, labels)


def test_labels_of_nothing_that_is_there_are_refused(
    indexed: Path, photos: Path, tmp_path: Path
) -> None:
    labels = write_labels(tmp_path / "labels.csv", {tmp_path / "no.jpg": "a"})
    with pytest.raises(InputError, match=r"none of the 1 files of .*: .*no\.jpg was looked for"):
        evaluate(indexed, labels)
    write_labels(labels, {min(photos.iterdir()): "a"})
    with pytest.raises(InputError, match=r"no class of .* has two images in the collection"):
        evaluate(indexed, labels)


def test_an_empty_collection_has_none_of_the_images(empty: Path, photo_labels: Path) -> None:
    with pytest.raises(InputError, match="none of the 40 files"):
        evaluate(empty, photo_labels)


def test_settings_and_places_that_make_no_sense_are_refused(
    indexed: Path, photo_labels: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="k is 0"):
        evaluate(indexed, photo_labels, k=0)
    with pytest.raises(SettingError, match="give one of recall, nprobe"):
        evaluate(indexed, photo_labels, recall=0.9, nprobe=1)
    with pytest.raises(NoCollectionError):
        evaluate(tmp_path / "nowhere", photo_labels)


def test_a_shard_that_is_gone_is_damage(indexed: Path, photo_labels: Path) -> None:
    for path in (indexed / "vectors").iterdir():
        path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        evaluate(indexed, photo_labels)


def test_a_shard_that_a_writer_has_replaced_meanwhile_is_no_damage(
    opened: Collection, indexed: Path, photo_labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(*_: object) -> None:
        opened.index(nlist=5)
        raise FileNotFoundError(2, "replaced", "vectors/1.npy")

    monkeypatch.setattr(evaluating, "ground_truth", replaced)
    with pytest.raises(BusyError, match=r"has replaced files .* try again when it is done"):
        evaluate(indexed, photo_labels)


@pytest.mark.whole("test_exact_search_is_measured_as_query_answers")
def test_corel_photographs_have_the_known_average_precision(
    data: Path, mobilenet_empty: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(mobilenet_empty, tmp_path / "corel")
    with (data / "corel1k" / "labels.csv").open() as file:
        rows = csv.DictReader(file)
        labels = {data / "corel1k" / row["path"]: row["label"] for row in rows}
    with Collection.open(directory, device="cpu") as collection:
        assert collection.index(data / "corel1k").indexed == 1000
        answers = collection.query_many(list(labels), k=10, rank="cosine")
    found = evaluate(directory, data / "corel1k" / "labels.csv")
    assert (found.images, found.queries, found.classes) == (1000, 1000, 10)
    assert found.exact.mean_average_precision.mean == pytest.approx(0.880, abs=0.005)
    assert found.exact.precision_at_k.mean == pytest.approx(0.961, abs=0.005)
    assert 0 < found.searched.exact < 100 < found.searched.ivf
    assert found.index is not None
    expected = by_query(labels, 10, answers)[:3]
    assert means(found, "index")[:3] == pytest.approx(expected, abs=1e-3)
