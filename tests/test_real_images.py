"""Real photographs and hostile files: what the issue promises, on the images of IMGSEARCH_DATA."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from imgsearch.collection import Collection
from imgsearch.hits import Hit


def labels_of(folder: Path) -> dict[str, str]:
    """Return the label of each image, by its absolute path."""
    with (folder / "labels.csv").open() as file:
        return {str(folder / row["path"]): row["label"] for row in csv.DictReader(file)}


def precision(labels: dict[str, str], queries: list[Path], answers: list[list[Hit]]) -> float:
    """Return the mean share of hits that have the label of their query."""
    same = [
        [labels[hit.path] == labels[str(query)] for hit in hits]
        for query, hits in zip(queries, answers, strict=True)
    ]
    return float(np.mean(same))


@pytest.mark.slow
def test_corel_photographs_find_their_class_and_the_lists_are_real(
    data: Path, mobilenet_empty: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(mobilenet_empty, tmp_path / "corel")
    queries = sorted((data / "corel1k" / "queries").iterdir())
    with Collection.open(directory, device="cpu") as collection:
        report = collection.index(data / "corel1k" / "images", nlist=30)
        assert (report.found, report.indexed) == (900, 900)
        exact = collection.query_many(queries, k=10, exact=True)
        assert precision(labels_of(data / "corel1k"), queries, exact) >= 0.95
        overlaps = [
            np.mean(
                [
                    len({hit.id for hit in some} & {hit.id for hit in best}) / 10
                    for some, best in zip(
                        collection.query_many(queries, k=10, nprobe=nprobe), exact, strict=True
                    )
                ]
            )
            for nprobe in (1, 30)
        ]
    assert overlaps[0] < 0.9
    assert overlaps[1] == 1.0


@pytest.mark.slow
def test_objects_are_found_in_their_other_views(
    data: Path, mobilenet_empty: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(mobilenet_empty, tmp_path / "ukbench")
    labels = labels_of(data / "ukbench500")
    queries = [Path(path) for path in labels]
    with Collection.open(directory, device="cpu") as collection:
        assert collection.index(data / "ukbench500").indexed == 500
        answers = collection.query_many(queries, k=3, exact=True, exclude_self=True)
    assert precision(labels, queries, answers) >= 0.97  # 3 other views: recall@3 is P@3


@pytest.mark.slow
def test_every_hostile_file_is_accounted_for(data: Path, collection: Collection) -> None:
    files = [path for path in (data / "odd").rglob("*") if not path.is_dir()]
    report = collection.index(data / "odd", time_limit=20)
    assert report.found == len(files)
    assert report.found == report.indexed + report.failed + report.skipped
    assert report.failed == len(report.failures)
    assert all(failure.reason for failure in report.failures)
    assert report.indexed > len(files) / 3
    again = collection.index(data / "odd")
    assert (again.unchanged, again.indexed) == (report.indexed, 0)
