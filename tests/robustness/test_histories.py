"""Whatever happens to a tree of files, the collection is as one made afresh of what is left."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from imgsearch.collection import Collection
from imgsearch.errors import GoneError, InputError
from imgsearch.files import listing
from imgsearch.indexing.policy import FoldPolicy
from imgsearch.indexing.report import IndexReport, Progress
from imgsearch.storage.catalog import Catalog
from imgsearch.storage.layout import Layout
from tests.support.depth import Harm
from tests.support.embedding_here import EngineInProcess
from tests.support.killing import MOMENTS, Moment, do_and_die, preload
from tests.support.outcomes import did, ids_in
from tests.support.small_network import make_small_collection
from tests.support.tiny_pictures import content_of

CONTENT = {name: content_of(seed) for seed, name in enumerate("abcdef")}
PICTURES = set(CONTENT.values())
CONTENT |= {"empty": b"", "damaged": b"\x89PNG\r\n\x1a\n cut off", "text": b"notes"}

NAMES = st.sampled_from(["1.png", "2.png", "3.png", "4.txt"])
FOLDERS = st.sampled_from(["x", "x/a", "x/a/b", "x/c", "x/.h", "y", "y/d"])
PLACES = st.one_of(FOLDERS, st.just(""))
PICTURE = st.sampled_from("abcdef")
CONTENTS = st.one_of(PICTURE, PICTURE, st.sampled_from(sorted(CONTENT)))
PICK = st.integers(0, 10**6)

#: So that a few files are many; in killed processes, too.
SMALL: list[tuple[Any, str, object]] = [
    (listing, "BLOCK", 2),
]

POLICY = FoldPolicy(commit_files=2)
ENGINE = EngineInProcess(seed=1)

preload(__name__)


def make_small() -> None:
    """Make a few files many for good, in a process that is to be killed."""
    for owner, name, value in SMALL:
        setattr(owner, name, value)


def index_all(collection: Collection) -> None:
    """Index all roots, drives unplugged or not."""
    with suppress(GoneError):
        collection.index(policy=POLICY, engine=ENGINE)


def _at(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


class History(RuleBasedStateMachine):
    """Does things to a tree, indexes it, and knows what the collection has to hold then."""

    histories = kills = 0

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory(dir=_fast())
        top = Path(self.temporary.name).resolve()
        self.tree = top / "tree"
        self.layout = Layout(make_small_collection(top / "collection"))
        self.collection = Collection.open(self.layout.directory, device="cpu")
        self.roots: set[Path] = set()
        self.entries: set[Path] = set()
        self.out_files: set[Path] = set()
        self.out_folders: set[Path] = set()
        self.held: dict[Path, bytes] = {}
        self.clock = itertools.count(1_000_000_000)
        self.patches = [patch.object(*change) for change in SMALL]
        for each in self.patches:
            each.start()

    def teardown(self) -> None:
        for each in self.patches:
            each.stop()
        self.collection.close()
        self.temporary.cleanup()
        History.histories += 1

    # What there is

    def files(self) -> list[Path]:
        return sorted(path for path in self.tree.rglob("*") if path.is_file())

    def pick(self, number: int) -> Path | None:
        files = self.files()
        return files[number % len(files)] if files else None

    def covers(self, folder: Path) -> bool:
        for root in self.roots:
            if _at(folder, root):
                between = [path for path in (folder, *folder.parents) if root in path.parents]
                if not any(p in self.out_folders or p.name.startswith(".") for p in between):
                    return True
        return False

    def looked_at(self, file: Path) -> bool:
        return (self.covers(file.parent) or file in self.entries) and file not in self.out_files

    def known(self) -> set[Path]:
        """Return all files that the collection knows, failures included."""
        catalog = Catalog(self.layout.catalog)
        known = {
            Path(os.fsdecode(os.path.join(root.path, path, name)))
            for root in catalog.roots()
            for id_, path in catalog.folders_below(root.id, b"")
            for name, file in catalog.known(id_).items()
            if not file.excluded
        }
        catalog.close()
        return known

    # What happens to the tree

    @initialize(contents=st.lists(CONTENTS, min_size=4, max_size=8))
    def begin(self, contents: list[str]) -> None:
        for number, content in enumerate(contents):
            folder = ("x", "x/a", "y", "x/c", "x/a/b", "y/d")[number % 6]
            self.write(folder, f"{1 + number // 3}.png", content, recent=bool(number % 2))
        paths = [self.tree / "x", self.tree / "y"]
        self.let_in(paths)
        self.check(lambda: self.bring(paths), None)

    @rule(folder=PLACES, name=NAMES, content=CONTENTS, recent=st.booleans())
    def write(self, folder: str, name: str, content: str, *, recent: bool) -> None:
        self.put(self.tree / folder / name, CONTENT[content], recent=recent)

    def put(self, path: Path, content: bytes, *, recent: bool) -> None:
        if any(parent.is_file() for parent in path.parents) or path.is_dir():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if not recent:
            self.touch_at(path)

    def touch_at(self, path: Path) -> None:
        os.utime(path, (0, next(self.clock)))

    @rule(number=PICK)
    def touch(self, number: int) -> None:
        path = self.pick(number)
        if path:
            self.touch_at(path)

    @rule(number=PICK, content=PICTURE)
    def change_at_the_same_time(self, number: int, content: str) -> None:
        path = self.pick(number)
        if path:
            before = path.stat()
            is_recent = time.time() - before.st_mtime < 1.5
            is_of_this_size = path.read_bytes() in PICTURES
            path.write_bytes(CONTENT[content])
            if is_recent and is_of_this_size:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            else:
                self.touch_at(path)

    @rule(number=PICK, folder=PLACES, name=NAMES, keep=st.booleans())
    def copy(self, number: int, folder: str, name: str, *, keep: bool) -> None:
        path, target = self.pick(number), self.tree / folder / name
        if path and path != target:
            status = path.stat()
            self.put(target, path.read_bytes(), recent=False)
            if keep and target.is_file():
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    @rule(number=PICK, folder=PLACES, name=NAMES)
    def rename(self, number: int, folder: str, name: str) -> None:
        path, target = self.pick(number), self.tree / folder / name
        if path and not any(parent.is_file() for parent in target.parents):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

    @rule(one=PICK, other=PICK)
    def swap(self, one: int, other: int) -> None:
        first, second = self.pick(one), self.pick(other)
        if first and second and first != second:
            aside = self.tree / "aside"
            first.replace(aside)
            second.replace(first)
            aside.replace(second)

    @rule(folder=FOLDERS)
    def renumber(self, folder: str) -> None:
        if (self.tree / folder).is_dir():
            files = sorted(path for path in (self.tree / folder).iterdir() if path.is_file())
            for number, path in reversed(list(enumerate(files, 2))):
                if not (self.tree / folder / f"{number}.png").is_dir():
                    path.replace(self.tree / folder / f"{number}.png")

    @rule(number=PICK)
    def delete(self, number: int) -> None:
        path = self.pick(number)
        if path:
            path.unlink()

    @rule(folder=FOLDERS)
    def delete_folder(self, folder: str) -> None:
        shutil.rmtree(self.tree / folder, ignore_errors=True)

    @rule(folder=FOLDERS, other=FOLDERS)
    def rename_folder(self, folder: str, other: str) -> None:
        old, new = self.tree / folder, self.tree / other
        if old.is_dir() and not new.exists() and not _at(new, old):
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)

    # What is asked of the collection

    @rule(
        folders=st.lists(PLACES, max_size=2),
        numbers=st.lists(PICK, max_size=1),
        prune=st.booleans(),
    )
    def index(self, folders: list[str], numbers: list[int], *, prune: bool) -> None:
        given = [self.tree / folder for folder in folders]
        files = [path for path in map(self.pick, numbers) if path]
        paths = [path for path in [*given, *files] if path.exists()]
        if not paths and not (self.roots or self.entries):
            return
        self.let_in(paths)
        self.check(lambda: self.bring(paths, prune=prune), paths or None, prune=prune)

    @rule(prune=st.booleans())
    def index_all(self, *, prune: bool) -> None:
        self.index([], [], prune=prune)

    @precondition(lambda self: self.roots or self.entries)
    @rule(calls=st.integers(1, 12))
    def index_and_interrupt(self, calls: int) -> None:
        countdown = itertools.count(1)

        def interrupt(progress: Progress) -> None:
            if next(countdown) == calls and not progress.training:
                raise KeyboardInterrupt

        before = dict(self.held)
        try:
            self.check(lambda: self.bring(progress=interrupt), None)
        except KeyboardInterrupt:
            self.held = self.read_back()
            now = {path: path.read_bytes() for path in self.files()}
            for path in before.keys() - self.held.keys():
                has_moved = path not in now and before[path] in self.held.values()
                assert has_moved or now[path] not in PICTURES
            assert all(content == now[path] for path, content in self.held.items() - before.items())
            self.is_as_held()
            self.forget_what_is_gone(prune=False)

    @precondition(lambda self: self.roots or self.entries)
    @rule(moment=MOMENTS)
    def index_and_be_killed(self, moment: Moment) -> None:
        before, now = self.held, {path: path.read_bytes() for path in self.files()}
        directory = self.layout.directory
        History.kills += do_and_die(directory, index_all, moment, before=make_small)
        self.held = self.read_back()
        assert not any(now.get(path) in PICTURES for path in before.keys() - self.held.keys())
        assert all(content == now[path] for path, content in self.held.items() - before.items())
        self.is_as_held()
        self.forget_what_is_gone(prune=False)

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.collection = Collection.open(self.layout.directory, device="cpu")
        self.is_as_held()

    @rule(folder=PLACES)
    def take_a_folder_out(self, folder: str) -> None:
        self.take_out(self.tree / folder)

    @rule(number=PICK)
    def take_a_file_out(self, number: int) -> None:
        known = sorted(self.known())
        if known:
            path = known[number % len(known)]
            before = self.held.pop(path, None)
            assert self.collection.remove(path) == (before is not None)
            self.out_files.add(path)
            self.entries.discard(path)
            self.is_as_held()

    @rule(pattern=st.sampled_from(["*/1.png", "*/a/*", "*.txt", "*/d/[23].png", "*/none/*"]))
    def take_a_pattern_out(self, pattern: str) -> None:
        whole = f"{self.tree}/{pattern}"
        matching = {path for path in self.known() if fnmatch.fnmatchcase(str(path), whole)}
        if not matching:
            with pytest.raises(InputError, match="nothing was removed"):
                self.collection.remove(whole)
        else:
            count = len(matching & self.held.keys())
            assert self.collection.remove(whole) == count
        self.held = {path: self.held[path] for path in self.held.keys() - matching}
        self.out_files |= matching
        self.entries -= matching
        self.is_as_held()

    @precondition(lambda self: self.roots)
    @rule(number=PICK, name=st.sampled_from(["z", "x/z", "y/z"]))
    def root_moves(self, number: int, name: str) -> None:
        root, new = sorted(self.roots)[number % len(self.roots)], self.tree / name
        if not root.is_dir() or new.exists() or not new.parent.is_dir() or _at(new, root):
            return
        root.rename(new)

        def moved(path: Path) -> Path:
            return new / path.relative_to(root) if _at(path, root) else path

        before = [self.held, self.roots, self.entries, self.out_files, self.out_folders]
        if any(_at(path, new) for path in self.roots):
            return
        self.held = {
            moved(path): content
            for path, content in self.held.items()
            if not _at(path, new)  # what another root knew of the new place
        }
        self.roots = set(map(moved, self.roots))
        self.entries = set(map(moved, self.entries))
        self.out_files = set(map(moved, self.out_files))
        self.out_folders = {moved(path) if path != root else path for path in self.out_folders}
        scope = [path for path in self.roots if _at(path, new)]
        try:
            self.check(lambda: self.bring(moved=(root, new)), scope)
        except InputError as error:
            if "unchanged; nothing was moved" not in str(error):  # too much has changed
                raise
            self.held, self.roots, self.entries, self.out_files, self.out_folders = before  # type: ignore[assignment]  # a tuple of copies
            self.is_as_held()

    # What has to be

    def let_in(self, paths: list[Path]) -> None:
        """Do to the roots what it does to index paths."""
        folders = [path for path in paths if path.is_dir()]
        files = [path for path in paths if path.is_file()]
        self.out_files -= set(files)
        for folder in folders:
            self.out_folders.discard(folder)
        for folder in folders:
            if not self.covers(folder):
                self.roots.add(folder)
        self.entries |= {file for file in files if not self.covers(file.parent)}
        self.entries = {file for file in self.entries if not self.covers(file.parent)}

    def take_out(self, folder: Path) -> None:
        gone = {path for path in self.held if _at(path, folder)}
        roots = {path for path in self.roots if _at(path, folder)}
        if not self.try_to_remove(folder, len(gone)):
            assert not gone
            assert not roots
            return
        self.held = {path: self.held[path] for path in self.held.keys() - gone}
        self.roots -= roots
        self.entries = {path for path in self.entries if not _at(path, folder)}
        self.out_files = {path for path in self.out_files if not _at(path, folder)}
        self.out_folders = {path for path in self.out_folders if not _at(path, folder)}
        if any(_at(folder, root) for root in self.roots):
            self.out_folders.add(folder)
        self.is_as_held()

    def try_to_remove(self, folder: Path, count: int) -> bool:
        try:
            assert self.collection.remove(folder) == count
        except InputError:
            self.is_as_held()
            return False
        return True

    def root_of(self, path: Path) -> Path:
        roots = {*self.roots, *(entry.parent for entry in self.entries)}
        return max((root for root in roots if _at(path, root)), key=lambda root: len(root.parts))

    def in_scope(self, path: Path, scope: list[Path] | None) -> bool:
        return scope is None or any(_at(path, top) for top in scope)

    def bring(self, paths: Sequence[Path] = (), **options: Any) -> IndexReport:
        """Index in steps so small that a few files are many."""
        return self.collection.index(paths, policy=POLICY, engine=ENGINE, **options)

    def check(
        self, index: Callable[[], IndexReport], scope: list[Path] | None, *, prune: bool = False
    ) -> None:
        there = {
            path: path.read_bytes()
            for path in self.files()
            if self.in_scope(path, scope) and self.looked_at(path)
        }
        fresh = {path: content for path, content in there.items() if content in PICTURES}
        before = dict(self.held)
        contents = {hashlib.sha256(content).digest() for content in fresh.values()}
        catalog = Catalog(self.layout.catalog)
        new = {digest for digest in contents if not catalog.holds(digest)}
        catalog.close()
        report: object
        reasons = None
        try:
            report = index()
        except GoneError as error:
            report, reasons = error.report, str(error)
        assert isinstance(report, IndexReport)
        assert not (prune and reasons)
        did(report)
        assert report.indexed == len(new)
        assert report.indexed + report.copied + report.moved + report.unchanged == len(fresh)
        held = {Path(path) for path in ids_in(self.collection)}
        outside = {path for path in before if not self.in_scope(path, scope)}
        kept = held - fresh.keys() - outside
        assert fresh.keys() <= held
        assert {path for path in outside if path.exists()} <= held
        assert kept <= before.keys()
        if reasons is None:
            assert not kept
        else:
            assert kept
            lost = any(
                not root.exists() or not list(root.iterdir())
                for root in (*(scope or []), *self.roots, *(path.parent for path in self.entries))
                if not root.is_file()
            )
            emptied = set(map(self.root_of, kept)) - set(map(self.root_of, held - kept))
            assert lost or emptied or 2 * len(kept) >= len(held), reasons
        self.held = {path: fresh.get(path) or before[path] for path in held}
        self.is_as_held()
        self.forget_what_is_gone(prune=prune)

    def forget_what_is_gone(self, *, prune: bool) -> None:
        """Follow the collection in which roots and entries it has given up."""
        catalog = Catalog(self.layout.catalog)
        roots = {Path(os.fsdecode(root.path)) for root in catalog.roots() if root.recursive}
        single = [root.id for root in catalog.roots() if not root.recursive]
        entries = {Path(os.fsdecode(file)) for root in single for file in catalog.files_of(root)}
        out = {Path(os.fsdecode(folder)) for folder in catalog.excluded_folders()}
        catalog.close()
        for root in self.roots - roots:  # what was taken out of it is forgotten with it
            assert prune
            assert not root.exists()
            self.out_files = {path for path in self.out_files if not _at(path, root)}
            self.out_folders = {
                path for path in self.out_folders if path in out or not _at(path, root)
            }
        assert self.out_folders == out
        self.roots &= roots
        assert self.roots == roots
        assert not any(path.is_file() for path in self.entries - entries)
        self.entries &= entries

    def read_back(self) -> dict[Path, bytes]:
        """Return the images of the collection, each with the content by which it is found."""
        return {
            Path(hit.path): content
            for content in PICTURES
            for hit in self.collection.query(content, k=100, exact=True)
            if hit.distance == 0
        }

    def is_as_held(self) -> None:
        """Assert that the collection holds what it should, each by its own content."""
        ids = ids_in(self.collection)
        assert set(ids) == set(map(str, self.held))
        assert self.read_back() == self.held


def _fast() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def test_any_history_of_files_ends_as_a_collection_made_afresh(harm: Harm) -> None:
    History.histories = History.kills = 0
    often = settings(max_examples=harm.times(40, 400, fast=3), stateful_step_count=40)
    run_state_machine_as_test(History, settings=often)
    assert History.kills
    harm.done("histories", History.histories)
    harm.done("kills", History.kills)
