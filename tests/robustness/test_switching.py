"""Killed while it is switched to another network, a collection answers with either, and whole."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from imgsearch.collection import Collection
from imgsearch.indexing import create
from imgsearch.storage.layout import Layout
from tests.support.depth import Harm
from tests.support.embedding_here import EngineInProcess
from tests.support.integrity import BUSY, check, check_tidy
from tests.support.killing import do_and_die, moments_of, preload
from tests.support.small_network import small_export

OTHER = "efficientnet_lite0"

preload(__name__)


def use_small_networks() -> None:
    """Have all networks be small ones, for good, in a process that is to be killed."""
    for name, stand_in in small_export().items():
        setattr(create, name, stand_in)


def switch(directory: Path, _: object = None) -> None:
    """Switch a collection to the other network."""
    Collection.switch(
        directory, model=OTHER, device="cpu", engine=EngineInProcess(seed=1), policy=BUSY
    )


def network_of(directory: Path, photos: Path) -> str:
    """Return the network of a collection, after checking that each image finds itself with it."""
    with Collection.open(directory, device="cpu") as collection:
        for photo in sorted(photos.iterdir())[::8]:
            (hit,) = collection.query(photo, k=1, include_self=True)
            assert (hit.path, hit.distance < 1e-3) == (str(photo), True)
        return collection.info().model.name


@pytest.mark.processes
def test_killed_at_any_moment_either_network_answers_and_never_a_mixture(
    indexed: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Harm
) -> None:
    for name, stand_in in small_export().items():
        monkeypatch.setattr(create, name, stand_in)
    with Collection.open(indexed, device="cpu") as collection:
        collection.index(policy=BUSY, engine=EngineInProcess(seed=1))
        ids = collection.ids.tolist()
    whole = shutil.copytree(indexed, tmp_path / "whole")
    found = moments_of(partial(switch, whole), harm.times(3, 20, fast=1))
    assert network_of(whole, photos) == OTHER
    seen = set()
    for moment in found:
        directory = shutil.copytree(indexed, tmp_path / f"{moment.step}-{moment.number}")
        assert do_and_die(directory, partial(switch, directory), moment, before=use_small_networks)
        name = network_of(directory, photos)
        assert check(directory).keys() == set(map(str, photos.iterdir()))
        seen.add(name)
        if name != OTHER:
            switch(directory)
        check_tidy(directory)
        assert network_of(directory, photos) == OTHER
        assert not Layout(directory).next.directory.exists()
        with Collection.open(directory, device="cpu") as collection:
            assert collection.ids.tolist() == ids
        harm.done("kills")
        shutil.rmtree(directory)
    assert len(found) >= (5 if harm.fast else 10)
    assert harm.fast or seen == {"mobilenet_v2", OTHER}
