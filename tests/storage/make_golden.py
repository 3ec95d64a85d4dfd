"""Make the golden collection of the present format version: `python -m tests.storage.make_golden`.

Its pictures lie in /tmp/golden/photos while it is made, so that its paths are the same everywhere.
See `test_golden.py` for what it holds. A file in `tests/data` is never made again once its format
version was released: what it holds is what those who have such a collection hold.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from imgsearch.collection import Collection
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.storage.layout import FORMAT_VERSION
from tests.support.pictures import picture, save_pictures
from tests.support.small_network import make_small_collection

GOLDEN = Path(__file__).parent.parent / "data"
ROOT = Path("/tmp/golden")
PHOTOS = ROOT / "photos"
LONG_AGO = 1_700_000_000  # seconds: a time that is trusted


def make(directory: Path) -> None:
    """Make the collection `directory`; all steps are those that its user would take."""
    shutil.rmtree(ROOT, ignore_errors=True)
    paths = save_pictures(PHOTOS, 70)
    save_pictures(PHOTOS / "below", 2, first=70)
    picture(99).save(ROOT / "single.png")
    (PHOTOS / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no JPEG")
    (PHOTOS / "notes.txt").write_text("no image")
    make_small_collection(directory)
    with Collection.open(directory, device="cpu") as collection:
        _index(collection, PHOTOS, nlist=4, recall=0.6)
        for seed in range(1, 70, 2):
            picture(100 + seed).save(paths[seed])
        picture(100).save(paths[0])
        _index(collection)  # half of the shard and of the segment is dead: both are written anew
        paths[1].unlink()
        collection.remove([paths[2], PHOTOS / "below"])
        save_pictures(PHOTOS / "new", 2, first=80)
        _index(collection, PHOTOS)
        _index(collection, ROOT / "single.png")
        _index(collection)  # nothing has changed: what was replaced is deleted
    (directory / "lock").unlink()
    shutil.rmtree(ROOT)


def _index(collection: Collection, *paths: Path, **options: Any) -> None:
    for path in PHOTOS.rglob("*.*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    policy = FoldPolicy(commit_seconds=600.0, ranked_from=64)  # one shard a run, and a ranking
    collection.index(paths, workers=1, policy=policy, **options)


if __name__ == "__main__":
    make(GOLDEN / f"collection-{FORMAT_VERSION}")
