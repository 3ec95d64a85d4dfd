"""The compact index, re-ranked, against brute force in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.ann.compact import CompactIndex, train_compact
from imgsearch.ann.exact import rerank
from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.kmeans import train
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.errors import DamagedError
from imgsearch.storage.files import write_atomically
from tests.support.brute_force import (
    DIM,
    assert_same_hits,
    blocks_of,
    nearest,
    probe,
    squares,
    stored,
)
from tests.support.depth import examples
from tests.support.outdated_index import outdated
from tests.support.small_network import random_embeddings

PCA = 12  # of 16: the embeddings are random, and every direction counts


def compact_of(ids: Ids, vectors: Vectors, nlist: int, pca: int = PCA) -> CompactIndex:
    index = train_compact(vectors, nlist, pca)
    index.add(ids, vectors)
    return index


@pytest.fixture
def compact(ids: Ids, vectors: Vectors) -> CompactIndex:
    return compact_of(ids, vectors, 8)


def entries(index: CompactIndex) -> Iterator[tuple[int, int, bytes]]:
    """Yield the list, the id and the bits of each vector; the factors behind them are rounded."""
    for number in range(index.nlist):
        for id_, code in zip(*index.codes(number), strict=True):
            yield number, int(id_), code[:-8].tobytes()


@settings(max_examples=examples(25), deadline=None)
@given(stored=stored(), nlist=st.integers(1, 12), k=st.integers(1, 30), data=st.data())
def test_probing_all_lists_and_re_ranking_enough_is_exact_search(
    stored: tuple[Ids, Vectors], nlist: int, k: int, data: st.DataObject
) -> None:
    ids, vectors = stored
    nlist = min(nlist, len(ids))
    removed = np.array(sorted(data.draw(st.sets(st.sampled_from(ids.tolist())))), np.int64)
    index = compact_of(ids, vectors, nlist, data.draw(st.integers(1, DIM)))
    queries = np.concatenate([vectors[:3], random_embeddings(3, seed=7, dim=DIM)])
    candidates = probe(index, queries, max(k, len(ids)), nlist, removed)[1]
    live = ~np.isin(ids, removed)
    found = rerank(queries, candidates, blocks_of(ids, vectors, 7), k)
    assert_same_hits(found, nearest(queries, ids[live], vectors[live], k))


def test_few_candidates_hold_the_nearest(compact: CompactIndex, ids: Ids, vectors: Vectors) -> None:
    queries = random_embeddings(50, seed=3, dim=DIM)
    candidates = probe(compact, queries, 200, 8)[1]
    found = rerank(queries, candidates, [(ids, vectors)], 10)[1]
    true = nearest(queries, ids, vectors, 10)[1]
    kept = [len(set(one) & set(other)) for one, other in zip(found, true, strict=True)]
    assert np.mean(kept) >= 9.5


def test_a_vector_is_found_by_itself(compact: CompactIndex, ids: Ids, vectors: Vectors) -> None:
    found = rerank(vectors, probe(compact, vectors, 50, 1)[1], [(ids, vectors)], 1)
    assert found[1][:, 0].tolist() == ids.tolist()
    np.testing.assert_array_equal(found[0], 0)


def test_distances_of_centroids_are_those_of_the_full_space(
    compact: CompactIndex, vectors: Vectors
) -> None:
    transform = faiss.downcast_VectorTransform(compact._whole.chain.at(0))
    rows = faiss.vector_to_array(transform.A).reshape(PCA, DIM)
    np.testing.assert_allclose(rows @ rows.T, np.eye(PCA), atol=1e-5)
    centroids = compact.centroids @ rows + vectors.mean(axis=0)
    distances, lists, _ = compact.assign(vectors, 8)
    expected = np.take_along_axis(squares(vectors, centroids), lists, 1)
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    assert (np.diff(distances, axis=1) >= 0).all()
    np.testing.assert_allclose(compact.emptied().add(np.arange(400), vectors), distances[:, 0])


def test_distances_are_about_those_after_pca(ids: Ids) -> None:
    vectors, queries = random_embeddings(400, dim=256), random_embeddings(9, seed=8, dim=256)
    index = compact_of(ids, vectors, 8, 128)
    found = probe(index, queries, 400, 8)
    rows = np.searchsorted(ids, found.ids)
    exact = np.take_along_axis(squares(index.project(queries), index.project(vectors)), rows, 1)
    np.testing.assert_allclose(found.distances, exact, atol=0.5)
    assert np.abs(found.distances - exact).mean() < 0.1


def test_excluded_ids_are_passed_over(compact: CompactIndex, ids: Ids, vectors: Vectors) -> None:
    found = probe(compact, vectors, 50, 8, ids[::2])[1]
    assert not np.isin(found, ids[::2]).any()
    assert (found >= 0).all()


# Training


def test_an_emptied_index_was_trained_as_the_one_before(
    compact: CompactIndex, ids: Ids, vectors: Vectors
) -> None:
    again = compact.emptied()
    assert (again.count, again.dim, again.pca, again.nlist) == (0, DIM, PCA, 8)
    assert again.is_trained_as(compact)
    again.add(ids, vectors)
    assert list(entries(again)) == list(entries(compact))


def test_an_outdated_index_is_read_and_searched(
    compact: CompactIndex, ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    old = outdated(compact, vectors)
    old.add(ids, vectors)
    write_atomically(tmp_path / "index", old.save)
    assert (tmp_path / "index").stat().st_size <= old.bytes_of(400)
    opened = CompactIndex.open(tmp_path / "index")
    assert (opened.outdated, compact.outdated) == (True, False)
    assert (opened.pca, opened.width, opened.count) == (PCA, PCA, 400)
    assert not opened.is_trained_as(compact)
    assert opened.is_trained_as(old.emptied())
    found = rerank(vectors, probe(opened, vectors, 50, 1)[1], [(ids, vectors)], 1)
    assert found[1][:, 0].tolist() == ids.tolist()
    again = opened.emptied()
    again.absorb(opened, ids[:2])
    assert again.count == 398


def test_another_training_is_told_apart(compact: CompactIndex, vectors: Vectors) -> None:
    flat = IvfIndex.empty(train(vectors, 8))
    assert compact.is_trained_as(train_compact(vectors, 8, PCA))
    assert not compact.is_trained_as(train_compact(vectors[:300], 8, PCA))
    assert not compact.is_trained_as(train_compact(vectors, 7, PCA))
    assert not compact.is_trained_as(train_compact(vectors, 8, PCA - 1))
    assert not compact.is_trained_as(flat)
    assert not flat.is_trained_as(compact)
    assert flat.is_trained_as(flat.emptied())
    assert (flat.lossy, compact.lossy) == (False, True)


def test_pca_keeps_the_directions_of_largest_variance() -> None:
    rng = np.random.default_rng(5)
    spread = np.array([0.01, 3, 0.02, 1, 0.03, 2], np.float32)
    vectors = (rng.normal(size=(500, 6)) * spread + 7).astype(np.float32)
    index = train_compact(vectors, 2, 3)
    assert np.square(index.project(vectors)).sum() == pytest.approx(
        np.square(vectors - vectors.mean(axis=0)).sum(), rel=1e-3
    )
    variances = index.project(vectors).var(axis=0)
    np.testing.assert_allclose(variances, np.square([3, 2, 1]), rtol=0.2)


@pytest.mark.parametrize("count", [1, 2, 8, 40])
def test_few_or_equal_vectors_can_be_trained_on_and_faiss_prints_nothing(
    count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for vectors in (random_embeddings(count, dim=DIM), np.repeat(random_embeddings(1), count, 0)):
        ids = np.arange(1, count + 1)
        index = compact_of(ids, vectors, 1, DIM)
        found = rerank(vectors, probe(index, vectors, count, 1)[1], [(ids, vectors)], count)
        assert (found[1] > 0).all()
        assert np.isfinite(found[0]).all()
    assert capfd.readouterr() == ("", "")


def test_training_is_seeded(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgsearch.ann.compact.PCA_TRAIN", 100)
    assert train_compact(vectors, 8, PCA).is_trained_as(train_compact(vectors, 8, PCA))


# Taking in another index


def test_an_index_takes_in_several_that_are_mapped_and_is_saved(
    compact: CompactIndex, ids: Ids, vectors: Vectors, tmp_path: Path
) -> None:
    for number, rows in enumerate(np.array_split(np.arange(400), 3)):
        part = compact.emptied()
        part.add(ids[rows], vectors[rows])
        write_atomically(tmp_path / str(number), part.save)
    merged = CompactIndex.open(tmp_path / "0").emptied()
    for number in range(3):
        merged.absorb(CompactIndex.open(tmp_path / str(number)), ids[:2])
    assert merged.count == merged.assigned == 398
    write_atomically(tmp_path / "merged", merged.save)
    opened = CompactIndex.open(tmp_path / "merged")
    assert opened.count == 398
    assert opened.is_trained_as(compact)
    assert sorted(entries(opened)) == sorted(
        entry for entry in entries(compact) if entry[1] not in ids[:2]
    )


# Files


def test_an_index_is_opened_as_it_was_saved(
    compact: CompactIndex, vectors: Vectors, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "index", compact.save)
    size = (tmp_path / "index").stat().st_size
    assert size <= compact.bytes_of(400) <= 1.2 * size + 1_024
    opened = CompactIndex.open(tmp_path / "index")
    assert (opened.nlist, opened.dim, opened.pca, opened.count) == (8, DIM, PCA, 400)
    assert opened.is_trained_as(compact)
    assert list(entries(opened)) == list(entries(compact))
    for one, other in zip(probe(compact, vectors, 5, 3), probe(opened, vectors, 5, 3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_faiss_alone_reads_and_searches_it(
    compact: CompactIndex, vectors: Vectors, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "index", compact.save)
    index = faiss.read_index(str(tmp_path / "index"))
    assert type(index) is faiss.IndexPreTransform
    assert type(faiss.downcast_VectorTransform(index.chain.at(0))) is faiss.PCAMatrix
    lists = faiss.downcast_index(index.index)
    assert type(lists) is faiss.IndexIVFRaBitQ
    assert (lists.metric_type, lists.rabitq.nb_bits) == (faiss.METRIC_L2, 1)
    lists.nprobe = 8
    assert_same_hits(index.search(vectors, 5), probe(compact, vectors, 5, 8))


def test_an_index_may_be_empty(compact: CompactIndex, vectors: Vectors, tmp_path: Path) -> None:
    write_atomically(tmp_path / "index", compact.emptied().save)
    opened = CompactIndex.open(tmp_path / "index")
    assert opened.count == 0
    assert probe(opened, vectors[:2], 3, 4)[1].tolist() == [[-1] * 3] * 2


def test_an_index_of_another_kind_is_damaged(
    compact: CompactIndex, index: IvfIndex, tmp_path: Path
) -> None:
    write_atomically(tmp_path / "compact", compact.save)
    write_atomically(tmp_path / "flat", index.save)
    with pytest.raises(DamagedError, match="is not an IndexIVFFlat"):
        IvfIndex.open(tmp_path / "compact")
    with pytest.raises(DamagedError, match="is not an IndexPreTransform"):
        CompactIndex.open(tmp_path / "flat")
    with pytest.raises(FileNotFoundError):
        CompactIndex.open(tmp_path / "missing")
    with pytest.raises(DamagedError, match="is a folder"):
        CompactIndex.open(tmp_path)


@pytest.mark.parametrize("count", [30, 200])
def test_the_directions_are_those_of_the_largest_variance_however_few_vectors(count: int) -> None:
    vectors = random_embeddings(count, dim=128)
    index = train_compact(vectors, 4, 10)
    short = index.project(vectors)
    np.testing.assert_allclose(short.mean(axis=0), 0, atol=1e-5)
    spectrum = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(short, axis=0), spectrum[:10], rtol=1e-4)


def test_a_pca_of_more_values_than_vectors_keeps_all_distances() -> None:
    vectors = random_embeddings(30, dim=128)
    index, others = train_compact(vectors, 4, 64), random_embeddings(9, seed=3, dim=128)
    short = index.project(vectors)
    np.testing.assert_allclose(squares(short, short), squares(vectors, vectors), atol=1e-5)
    assert (squares(index.project(others), short) < squares(others, vectors) + 1e-5).all()
