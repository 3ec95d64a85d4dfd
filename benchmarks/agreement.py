"""Whether two contestants did the same work: how alike their embeddings of the same files are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

__all__ = ["Agreement", "compare"]

COSINE = 0.999  # or more, where both decode the same pixels
COSINE_REDUCED = 0.99  # reduced scale changes the pixels a little


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cosines between the pipeline's embeddings and the loop's.

    Attributes:
        full: the least among photographs that both decode in full; 1 if there are none.
        reduced: the least among those that the pipeline decodes at reduced scale; 1 if none.
        strangers: the median between different photographs: what no agreement looks like.
        compared: how many photographs; the others have what the loop does not know of, an EXIF
            orientation, transparency or a mode that `convert("RGB")` does not do justice.
    """

    full: float
    reduced: float
    strangers: float
    compared: int

    @property
    def holds(self) -> bool:
        """Tell whether both did the same work."""
        return self.full >= COSINE and self.reduced >= COSINE_REDUCED


def compare(
    paths: Sequence[Path], size: int, one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]
) -> Agreement:
    """Compare two embeddings, float32 `[n, dim]`, L2-normalised, of the files at `paths`."""
    kinds = np.array([_kind_of(path, size) for path in paths])
    plain = kinds != "odd"
    cosines = one @ other.T
    same = np.diagonal(cosines)
    strangers = cosines[np.ix_(plain, plain)][~np.eye(int(plain.sum()), dtype=bool)]
    return Agreement(
        full=float(same[kinds == "full"].min(initial=1)),
        reduced=float(same[kinds == "reduced"].min(initial=1)),
        strangers=float(np.median(strangers)) if strangers.size else 0.0,
        compared=int(plain.sum()),
    )


def _kind_of(path: Path, size: int) -> str:
    with Image.open(path) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if not upright or image.mode not in ("RGB", "L") or image.has_transparency_data:
            return "odd"
        whole = image.size
        image.draft(None, (2 * size, 2 * size))
        return "full" if image.size == whole else "reduced"
