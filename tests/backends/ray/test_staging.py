"""Staged shards: what is read back, what counts, what is removed."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest

from imgsearch.backends.ray.staging import StagedFile, Staging
from imgsearch.embedding.pipeline import Embedded, Outcome, Refused
from imgsearch.errors import SettingError, StorageError
from tests.support.small_network import random_embeddings

ODD = os.fsdecode(b"/photos/\xff.jpg")


def _outcomes() -> list[tuple[str, Outcome]]:
    first, second = random_embeddings(2)
    return [
        ("/photos/a.jpg", Embedded(first, b"a" * 32, 10, 1_000)),
        ("/photos/notes.txt", Refused("is not an image", recognised=False)),
        (ODD, Embedded(second, b"b" * 32, 20, None)),
        ("/photos/huge.png", Refused("is too large", limited=True)),
    ]


def _files(staging: Staging) -> dict[str, bytes]:
    files, root = fsspec.core.url_to_fs(staging.url)
    names = files.ls(root, detail=False) if files.exists(root) else []
    return {name.rpartition("/")[2]: files.cat_file(name) for name in names}


def _write(staging: Staging, name: str, content: bytes) -> None:
    files, root = fsspec.core.url_to_fs(staging.url)
    files.pipe_file(f"{root}/{name}", content)


def _same(one: Outcome, other: Outcome) -> bool:
    if isinstance(one, Embedded) and isinstance(other, Embedded):
        facts = [(each.digest, each.size, each.mtime_ns) for each in (one, other)]
        return facts[0] == facts[1] and np.array_equal(one.embedding, other.embedding)
    return one == other


def test_a_shard_is_read_back_as_it_was_added(staging: Staging) -> None:
    added = _outcomes()
    read = staging.read(staging.add("m", added))
    assert all(_same(one, other) for (_, one), other in zip(added, read, strict=True))


def test_a_shard_of_failures_only_is_read_back(staging: Staging) -> None:
    assert staging.read(staging.add("m", _outcomes()[1:2])) == [_outcomes()[1][1]]


def test_what_was_embedded_is_found_and_what_failed_is_not(staging: Staging) -> None:
    name = staging.add("m", _outcomes(), {"/photos/a.jpg": 2_000})
    assert staging.find("m") == {
        "/photos/a.jpg": StagedFile(name, 0, 10, 1_000, 2_000),
        ODD: StagedFile(name, 2, 20, None, None),
    }


def test_nothing_is_found_where_nothing_was_staged(staging: Staging) -> None:
    assert staging.find("m") == {}


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_shard_whose_manifest_was_cut_off_does_not_count_and_is_removed(
    staging: Staging, left: int
) -> None:
    name = staging.add("m", _outcomes())
    _write(staging, f"{name}.json", _files(staging)[f"{name}.json"][:left])
    assert staging.find("m") == {}
    assert _files(staging) == {}


def test_a_shard_without_a_manifest_is_removed_and_others_stay(staging: Staging) -> None:
    name = staging.add("m", _outcomes())
    _write(staging, f"{'0' * 32}.npy", b"cut off")
    assert {staged.shard for staged in staging.find("m").values()} == {name}
    assert sorted(_files(staging)) == [f"{name}.json", f"{name}.npy"]


def test_shards_of_another_model_are_removed(staging: Staging) -> None:
    staging.add("another", _outcomes())
    assert staging.find("m") == {}
    assert _files(staging) == {}


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:-1] + b"x"])
def test_a_damaged_shard_is_refused(staging: Staging, harm: type[bytes]) -> None:
    name = staging.add("m", _outcomes())
    _write(staging, f"{name}.npy", harm(_files(staging)[f"{name}.npy"]))
    with pytest.raises(StorageError, match=r"damaged.*index again"):
        staging.read(name)


def test_a_damaged_model_is_refused(staging: Staging) -> None:
    staging.write_model("0" * 64, b"not that")
    with pytest.raises(StorageError, match="damaged"):
        staging.read_model("0" * 64)


def test_clearing_leaves_what_is_somebody_elses(staging: Staging) -> None:
    staging.add("m", _outcomes())
    staging.write_model("0" * 64, b"model")
    _write(staging, "diary.txt", b"dear diary")
    staging.clear()
    assert _files(staging) == {"diary.txt": b"dear diary"}


def test_clearing_leaves_no_empty_folder(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path / "staging"))
    staging.add("m", _outcomes())
    staging.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_kind_of_url_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingError, match="cannot use nonsense://x for staging"):
        Staging("nonsense://x")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot use .*file/staging for staging"):
        Staging(str(tmp_path / "file" / "staging")).add("m", _outcomes())
