"""List the networks that a collection can be made with, and whether their weights are here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imgsearch.embedding import clip
from imgsearch.embedding.models import MODELS, OPEN_CLIP, TORCHVISION, find_network
from imgsearch.embedding.weights import Source, source_of
from imgsearch.embedding.zoo import names
from imgsearch.errors import ModelError, is_installed

__all__ = ["Choice", "choices"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A network with its default weights.

    Attributes:
        name: Name of the network.
        dim: Length of an embedding.
        input_size: Edge in pixels of the square that an image is squashed to.
        weights: Name of the weights.
        source: Origin of the weights.
    """

    name: str
    dim: int
    input_size: int
    weights: str
    source: Source


def choices() -> Iterator[Choice]:
    """Yield the networks that can be used: those of a library only if it is installed."""
    there = is_installed("torch") and is_installed("torchvision")
    torchvisions = [f"{TORCHVISION}{each}" for each in (names() if there else ())]
    open_clips = is_installed("open_clip") and is_installed("torch")
    worded = [f"{OPEN_CLIP}{each}" for each in (clip.names() if open_clips else ())]
    for name in [*MODELS, *torchvisions, *worded]:
        try:
            network = find_network(name)
        except ModelError:  # It is too large.
            continue
        shapes = network.dim, network.input_size
        yield Choice(network.name, *shapes, network.weights, source_of(network))
