"""The engines that `bench_peers` compares: each builds and saves an index, opens it and searches.

Every engine gets the same float32 vectors, of unit length, and two threads (`--threads`).
"""

from __future__ import annotations

import pickle
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.subjects import ROWS, Vectors, commit_vectors, make_empty
from imgsearch import Collection
from imgsearch.ann.kmeans import choose_nlist
from imgsearch.indexing.fold import fold
from imgsearch.storage.files import exclusive
from imgsearch.storage.layout import Layout
from imgsearch.storage.records import Storage
from imgsearch.storage.writer import CatalogWriter

__all__ = ["PEERS", "Peer"]

Ids = npt.NDArray[np.int64]

CONNECTIVITY = 16  # of a graph's nodes: hnswlib's M
EXPANSION = 200  # of a graph's construction: hnswlib's ef_construction
SEED = 1234


class Peer(Protocol):
    """An engine. `effort` is what it is made more thorough by: nprobe, or the graphs' ef."""

    name: ClassVar[str]
    effort: ClassVar[str]

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Make an index of `vectors`, float32 `[n, dim]`, and save it in `folder`."""

    def open(self, folder: Path, threads: int) -> None:
        """Open what was saved."""

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Return the rows of the `k` nearest vectors, int64 `[n, k]`."""


class Imgsearch:
    """This program: a collection, searched by `Collection.query_many` as arrays."""

    name: ClassVar[str] = "imgsearch"
    effort: ClassVar[str] = "nprobe"
    storage: ClassVar[Storage] = "flat"

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Make a collection with its model, commit the vectors, and make the index."""
        faiss.omp_set_num_threads(threads)
        directory = folder / "collection"
        make_empty(directory)
        layout = Layout(directory)
        with closing(CatalogWriter(layout.catalog)) as catalog, exclusive(directory):
            catalog.change_settings(nlist=None, recall=None, storage=self.storage)
            for start in range(0, len(vectors), ROWS):
                commit_vectors(layout, catalog, np.asarray(vectors[start : start + ROWS]))
            fold(layout, catalog, device="cpu")

    def open(self, folder: Path, threads: int) -> None:
        """Open the collection."""
        faiss.omp_set_num_threads(threads)
        self._collection = Collection.open(folder / "collection", device="cpu")

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Search with `effort` as nprobe."""
        found = self._collection.query_many(queries, k=k, nprobe=effort, arrays=True, rank="cosine")
        return found.ids - 1


class Compact(Imgsearch):
    """This program, with `--storage compact`."""

    name: ClassVar[str] = "imgsearch compact"
    storage: ClassVar[Storage] = "compact"


class Faiss:
    """Raw `IndexIVFFlat`, read into memory."""

    name: ClassVar[str] = "Faiss IVFFlat"
    effort: ClassVar[str] = "nprobe"
    kind: ClassVar[str] = "IVF{nlist},Flat"  # for `faiss.index_factory`

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Train with Faiss's own defaults, on as many lists as imgsearch takes."""
        faiss.omp_set_num_threads(threads)
        kind = self.kind.format(nlist=choose_nlist(len(vectors)))
        index = faiss.index_factory(vectors.shape[1], kind)
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(folder / "ivf.faiss"))

    def open(self, folder: Path, threads: int) -> None:
        """Read the index."""
        faiss.omp_set_num_threads(threads)
        self._index = faiss.read_index(str(folder / "ivf.faiss"))

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Search with `effort` as nprobe."""
        found: Ids = self._index.search(queries, k, params=self.parameters(effort))[1]
        return found

    def parameters(self, effort: int) -> Any:
        """Return what `effort` means to Faiss."""
        return faiss.SearchParametersIVF(nprobe=effort)


class FaissRefined(Faiss):
    """A Faiss index behind PCA whose best 50 are compared again, exactly."""

    def parameters(self, effort: int) -> Any:
        """See `Faiss.parameters`."""
        ivf = faiss.SearchParametersIVF(nprobe=effort)
        inner = faiss.SearchParametersPreTransform(index_params=ivf)
        return faiss.IndexRefineSearchParameters(k_factor=5, base_index_params=inner)


class FaissRaBitQ(FaissRefined):
    """`IndexIVFRaBitQFastScan`."""

    name: ClassVar[str] = "Faiss RaBitQ"
    kind: ClassVar[str] = "PCA256,IVF{nlist},RaBitQfs,RFlat"


class FaissPQ(FaissRefined):
    """`IndexIVFPQFastScan`."""

    name: ClassVar[str] = "Faiss IVFPQ"
    kind: ClassVar[str] = "PCA256,IVF{nlist},PQ64x4fs,RFlat"


class FaissHnsw(Faiss):
    """`IndexHNSWFlat`."""

    name: ClassVar[str] = "Faiss HNSW"
    effort: ClassVar[str] = "ef"
    kind: ClassVar[str] = "HNSW16"

    def parameters(self, effort: int) -> Any:
        """See `Faiss.parameters`."""
        return faiss.SearchParametersHNSW(efSearch=effort)


class Scann:
    """ScaNN: a tree of leaves, asymmetric hashing, and the best 100 compared again, exactly."""

    name: ClassVar[str] = "ScaNN"
    effort: ClassVar[str] = "leaves"

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Train on at most 100,000 vectors."""
        from scann import scann_ops_pybind

        leaves, sample = choose_nlist(len(vectors)), min(len(vectors), 100_000)
        builder = scann_ops_pybind.builder(vectors, 10, "squared_l2")
        builder = builder.tree(leaves, 16, training_sample_size=sample)
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        searcher = builder.set_n_training_threads(threads).build()
        (folder / "scann").mkdir()
        searcher.serialize(str(folder / "scann"))

    def open(self, folder: Path, threads: int) -> None:
        """Read the tree."""
        from scann import scann_ops_pybind

        self._searcher: Any = scann_ops_pybind.load_searcher(str(folder / "scann"))
        self._searcher.set_num_threads(threads)

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Search with `effort` as leaves."""
        found = self._searcher.search_batched_parallel(
            queries, final_num_neighbors=k, leaves_to_search=effort
        )[0]
        return np.asarray(found, np.int64)


class Exact:
    """Every vector compared: `IndexFlatL2`; its effort is always 1."""

    name: ClassVar[str] = "exact"
    effort: ClassVar[str] = "all"

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Write the vectors."""
        faiss.omp_set_num_threads(threads)
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(folder / "flat.faiss"))

    def open(self, folder: Path, threads: int) -> None:
        """Read the vectors."""
        faiss.omp_set_num_threads(threads)
        self._index = faiss.read_index(str(folder / "flat.faiss"))

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Compare with all."""
        del effort
        found: Ids = self._index.search(queries, k)[1]
        return found


class Hnswlib:
    """A graph of neighbours: Malkov and Yashunin, hnswlib."""

    name: ClassVar[str] = "hnswlib"
    effort: ClassVar[str] = "ef"

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Insert all vectors."""
        import hnswlib

        index = hnswlib.Index(space="l2", dim=vectors.shape[1])
        index.init_index(len(vectors), EXPANSION, CONNECTIVITY, SEED)
        index.add_items(vectors, num_threads=threads)
        index.save_index(str(folder / "hnsw.bin"))
        np.save(folder / "dim.npy", np.array(vectors.shape[1]))

    def open(self, folder: Path, threads: int) -> None:
        """Read the graph."""
        import hnswlib

        self._index: Any = hnswlib.Index(space="l2", dim=int(np.load(folder / "dim.npy")))
        self._index.load_index(str(folder / "hnsw.bin"))
        self._threads = threads

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Search with `effort` as ef."""
        self._index.set_ef(max(effort, k))
        found = self._index.knn_query(queries, k, num_threads=self._threads)[0]
        return np.asarray(found, np.int64)


class Usearch:
    """A graph of neighbours: USearch, in float32."""

    name: ClassVar[str] = "usearch"
    effort: ClassVar[str] = "ef"

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Insert all vectors."""
        from usearch.index import Index

        index = Index(
            ndim=vectors.shape[1],
            metric="l2sq",
            dtype="f32",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION,
        )
        index.add(np.arange(len(vectors)), vectors, threads=threads)
        index.save(str(folder / "usearch.bin"))

    def open(self, folder: Path, threads: int) -> None:
        """Read the graph."""
        from usearch.index import Index

        self._index: Any = Index.restore(str(folder / "usearch.bin"))
        self._threads = threads

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Search with `effort` as expansion."""
        self._index.expansion_search = max(effort, k)
        found = self._index.search(queries, k, threads=self._threads)
        return np.asarray(found.keys, np.int64).reshape(len(queries), k)


class KMeansNumPy:
    """The original system's method: scikit-learn's KMeans, and NumPy to scan the lists."""

    name: ClassVar[str] = "KMeans + NumPy"
    effort: ClassVar[str] = "nprobe"

    def build(self, vectors: Vectors, folder: Path, threads: int) -> None:
        """Cluster the vectors, and file them."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        kmeans = KMeans(choose_nlist(len(vectors)), n_init=1, max_iter=10, random_state=SEED)
        with threadpool_limits(threads):
            labels = kmeans.fit_predict(vectors)
        rows = [np.flatnonzero(labels == number) for number in range(kmeans.n_clusters)]
        content = kmeans.cluster_centers_, [(own, np.asarray(vectors[own])) for own in rows]
        (folder / "kmeans.pickle").write_bytes(pickle.dumps(content, protocol=5))

    def open(self, folder: Path, threads: int) -> None:
        """Read the lists."""
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(threads)
        content = pickle.loads((folder / "kmeans.pickle").read_bytes())  # noqa: S301 - our own
        self._centres, self._lists = content

    def search(self, queries: Vectors, k: int, effort: int) -> Ids:
        """Scan the `effort` nearest lists of each query, a query at a time."""
        found = np.full((len(queries), k), -1, np.int64)
        near = ((self._centres**2).sum(axis=1) - 2 * queries @ self._centres.T).argsort(axis=1)
        for row, query in enumerate(queries):
            chosen = [self._lists[number] for number in near[row, :effort]]
            ids = np.concatenate([own for own, _ in chosen])
            distances = np.concatenate([((part - query) ** 2).sum(axis=1) for _, part in chosen])
            best = distances.argsort()[:k]
            found[row, : len(best)] = ids[best]
        return found


PEERS: tuple[type[Peer], ...] = (
    *(Imgsearch, Compact, Faiss, FaissRaBitQ, FaissPQ, FaissHnsw),
    *(Hnswlib, Usearch, Scann, KMeansNumPy, Exact),
)
