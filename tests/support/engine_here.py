"""A cluster of this process alone: an engine that does all that a Ray cluster does, without Ray."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

from imgsearch.ann.inverted import InvertedFile
from imgsearch.ann.vectors import Ids, Vectors
from imgsearch.backends.ray.extraction import Extraction
from imgsearch.backends.ray.parts import Recipe
from imgsearch.backends.ray.staging import Staging
from imgsearch.embedding.models import Shapes
from imgsearch.embedding.pipeline import Outcome
from imgsearch.images.limits import Limits
from imgsearch.indexing.engine import ModelFile, Wanted
from imgsearch.storage.records import ModelRecord
from tests.support.embedding_here import embed_here

__all__ = ["EngineHere"]


class _Job:
    """Stages each part at once, and tells of those that are under way in a random order."""

    def __init__(
        self, staging: Staging, model: Path, record: ModelRecord, asked: list[str]
    ) -> None:
        self.workers = 2
        self._staging = staging
        self._model = model
        self._record = record
        self._asked = asked
        self._staged: list[tuple[int, str]] = []
        self._put = 0
        self._order = random.Random(0)

    def put(self, paths: Sequence[str], done: int | None) -> int:
        assert done is None or done < self._put
        self._asked += paths
        outcomes = embed_here()(
            paths,
            wanted=_everything,
            model=self._model,
            shapes=Shapes(self._record.input_size, self._record.dim),
        )
        ctimes = {path: os.stat(path).st_ctime_ns for path in paths if os.path.exists(path)}
        done_here = list(zip(paths, outcomes, strict=True))
        shard = self._staging.add(self._record.onnx_sha256, done_here, ctimes)
        self._staged.append((self._put, shard))
        self._put += 1
        return self._put - 1

    def finish(self) -> None:
        pass

    def take(self) -> tuple[int, str]:
        return self._staged.pop(self._order.randrange(len(self._staged)))

    def close(self) -> None:
        pass


def _everything(_: str, __: bytes) -> bool:
    return True


class EngineHere:
    """An engine; `asked` are the paths that were embedded."""

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self.asked: list[str] = []
        self._extraction: Extraction | None = None

    def embed_files(
        self,
        paths: Iterable[str],
        wanted: Wanted,
        *,
        model: ModelFile,
        limits: Limits,
    ) -> Generator[Outcome, None, None]:
        record = model.record
        recipe = Recipe(self.staging.url, record, limits, gpu=False, trust_model=model.trusted)
        pickle.dumps(recipe)
        self._extraction = Extraction(
            self.staging,
            record.onnx_sha256,
            lambda: _Job(self.staging, model.checked(), record, self.asked),
        )
        return self._extraction.embed(paths, wanted)

    def committed(self) -> None:
        assert self._extraction is not None
        self._extraction.committed()

    def assign(
        self, index: InvertedFile, blocks: Iterable[tuple[Ids, Vectors]]
    ) -> Iterator[tuple[Ids, Vectors, Ids]]:
        travelled: InvertedFile = pickle.loads(pickle.dumps(index))
        assert travelled.is_trained_as(index)
        assert travelled.count == 0
        for ids, vectors in blocks:
            yield ids, vectors, travelled.assign_one(vectors)
