"""Vectors, their ids and an index of them."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.ann.flat import IvfIndex
from imgsearch.ann.vectors import Ids, Vectors
from tests.support.brute_force import DIM, index_of
from tests.support.small_network import random_embeddings


@pytest.fixture(scope="session")
def vectors() -> Vectors:
    return random_embeddings(400, dim=DIM)


@pytest.fixture(scope="session")
def ids() -> Ids:
    return np.arange(1, 1201, 3)


@pytest.fixture
def index(ids: Ids, vectors: Vectors) -> IvfIndex:
    return index_of(ids, vectors, 8)
