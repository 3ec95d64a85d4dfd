"""One indexing run into Milvus: list, compare with the rows, embed, send, drop missing images."""

from __future__ import annotations

import fnmatch
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from imgsearch.backends.milvus.rows import Row
from imgsearch.backends.milvus.sink import New, RowSink
from imgsearch.backends.milvus.state import State, write_state
from imgsearch.backends.milvus.store import Store
from imgsearch.backends.milvus.train import finish
from imgsearch.embedding.pipeline import Embedded, Outcome, Refused
from imgsearch.errors import GoneError, InputError, SettingError
from imgsearch.files.exclusions import Exclusions
from imgsearch.files.kinds import APPLE_DOUBLE, LEFT_OUT, SPECIAL, kind_of
from imgsearch.files.listing import Kind, Unreadable
from imgsearch.files.mounts import is_gone, is_lost, unanswered
from imgsearch.files.paths import is_at, plain_path, real_path, resolved_path, upwards
from imgsearch.files.sources import existing, is_folder
from imgsearch.indexing.engine import Embed
from imgsearch.indexing.options import IndexOptions
from imgsearch.indexing.report import Failure, IndexReport, Progress, Tally
from imgsearch.indexing.scope import Scope, list_scope

__all__ = ["index", "remove"]


def index(
    store: Store,
    state: State,
    paths: Sequence[str | os.PathLike[str]],
    options: IndexOptions,
    *,
    embed: Embed,
    own: Path,
) -> IndexReport:
    """Update a collection with the files under `paths`, or under all its known paths if empty.

    Args:
        store: Store of the collection.
        state: State to write, with its new settings.
        paths: Files, folders or URLs; none for all paths that the collection had.
        options: Options of the run.
        embed: Function that embeds the files.
        own: Folder that is not indexed.

    Raises:
        InputError: If a path does not exist.
        GoneError: If files are missing that an unplugged drive may hold; everything else is done.
        SettingError: If there is nothing to index.
    """
    started = time.monotonic()
    state = _named(state, paths)
    if not state.folders and not state.files:
        raise SettingError(
            "there is nothing to index yet; name a folder, as in `imgsearch index FOLDER`"
        )
    scope = _scope(state, paths)
    write_state(store, state)
    run = _Run(store, state, scope, options, own)
    run.embed(embed)
    reasons = run.drop_gone()
    if options.progress:
        options.progress(Progress(run.tally.done, run.tally.done, training=True))
    finish(store, run.state, run.sink)
    seconds = time.monotonic() - started
    report = run.tally.report(removed=run.removed, left_out=run.left_out, seconds=seconds)
    if reasons:
        raise GoneError(
            f"{'; '.join(reasons)} in case a drive is unplugged; plug it in, or drop the images "
            f"with `imgsearch index --prune`",
            report,
        )
    return report


def _named(state: State, paths: Sequence[str | os.PathLike[str]]) -> State:
    """Add the paths to scan from now on; removed paths that are named are admitted again."""
    folders, files, excluded = list(state.folders), list(state.files), list(state.excluded)
    exclusions = Exclusions.of(state.settings.exclude, state.settings.include)
    for path in paths:
        top = existing(path)
        excluded = [place for place in excluded if place != top]
        known = any(is_at(top, each) and not exclusions.covers(top, each) for each in folders)
        if is_folder(top):
            folders += [] if known else [top]
        elif not known and top not in files:
            files.append(top)
    return replace(state, folders=tuple(folders), files=tuple(files), excluded=tuple(excluded))


def _scope(state: State, paths: Sequence[str | os.PathLike[str]]) -> Scope:
    given = [existing(path) for path in paths]
    folders = [path for path in given if is_folder(path)] if given else state.folders
    files = [path for path in given if not is_folder(path)] if given else state.files
    return Scope(
        list(dict.fromkeys(folders)),
        list(dict.fromkeys(files)),
        frozenset(state.excluded),
        Exclusions.of(state.settings.exclude, state.settings.include),
    )


class _Run:
    """The state of a run."""

    def __init__(
        self, store: Store, state: State, scope: Scope, options: IndexOptions, own: Path
    ) -> None:
        self.state = state
        self.sink = RowSink(store)
        self._store = store
        self._scope = scope
        self._options = options
        self._own = own
        self._known: dict[bytes, list[Row]] = {}
        self._holders: dict[bytes, Row] = {}  # by digest
        for row in store.rows():
            self._known.setdefault(row.path, []).append(row)
            self._holders[row.digest] = row
        self._count = len(self._known)
        self._waiting: deque[bytes] = deque()
        self._seen: set[bytes] = set()
        self._moved: set[bytes] = set()
        self.tally = Tally()
        self.removed = 0
        self.left_out = 0

    def embed(self, embed: Embed) -> None:
        """Embed and send new and changed files."""
        try:
            with closing(embed(self._candidates(), self._wanted)) as outcomes:
                for outcome in outcomes:
                    self._take(self._waiting.popleft(), outcome)
                    if self._options.progress:
                        self._options.progress(Progress(self.tally.done, None))
        except KeyboardInterrupt:
            self.sink.release()
            raise

    def _wanted(self, _: str, digest: bytes) -> bool:
        return digest not in self._holders

    def _candidates(self) -> Iterator[str]:
        out = frozenset(self.state.excluded)
        for listing in list_scope(self._scope, self._own):
            if isinstance(listing, Unreadable):
                self.tally.unreadable.append(Failure(os.fsdecode(listing.folder), listing.reason))
                continue
            for file in listing.files:
                path = os.path.join(listing.folder, file.name)
                self.tally.found += 1
                if path in out:
                    self.tally.excluded += 1
                elif file.kind is Kind.LEFT_OUT:
                    self.tally.skipped[
                        APPLE_DOUBLE if file.name.startswith(b"._") else LEFT_OUT
                    ] += 1
                elif file.kind is Kind.SPECIAL:
                    self.tally.skipped[SPECIAL] += 1
                elif file.kind is Kind.BROKEN:
                    reason = "cannot be read, or is a broken link"
                    self.tally.failures.append(Failure(os.fsdecode(path), reason))
                elif self._is_as_it_was(path, file.size, file.mtime_ns):
                    self.tally.unchanged += 1
                else:
                    self._waiting.append(path)
                    self._seen.add(path)
                    yield os.fsdecode(path)

    def _is_as_it_was(self, path: bytes, size: int, mtime_ns: int | None) -> bool:
        rows = self._known.get(path, [])
        # There are several after a crash between adding one and deleting another: all but one go.
        if (
            self._options.rehash
            or mtime_ns is None
            or not any((row.size, row.mtime_ns) == (size, mtime_ns) for row in rows)
        ):
            return False
        self._seen.add(path)
        same = [row for row in rows if (row.size, row.mtime_ns) == (size, mtime_ns)]
        self._store.delete(row.id for row in rows if row != same[0])
        return True

    def _take(self, path: bytes, outcome: Outcome) -> None:
        old = self._known.get(path, [])
        if isinstance(outcome, Refused):
            if outcome.recognised:
                self.tally.failures.append(Failure(os.fsdecode(path), outcome.reason))
            else:
                self.tally.skipped[kind_of(os.path.basename(path), outcome.reason)] += 1
            if not outcome.transient:  # else the image is kept, and the next run tries again
                self._store.delete(row.id for row in old)
            return
        row = Row.of(path, outcome.digest, outcome.size, outcome.mtime_ns)
        replaces = [each.id for each in old]
        if isinstance(outcome, Embedded):
            self.tally.indexed += 1
            self.sink.add(New(row, outcome.embedding, replaces))
            return
        holder = self._holders[outcome.digest]
        if any(each.digest == row.digest for each in old):
            self.tally.unchanged += 1
        elif holder.path not in self._moved and is_gone(holder.path):
            self._moved.add(holder.path)
            self.tally.moved += 1
            replaces.append(holder.id)
        else:
            self.tally.copied += 1
        self.sink.add(New(row, self._store.vectors([holder.id])[holder.id], replaces))

    def drop_gone(self) -> list[str]:
        """Drop images whose files are missing; return the reasons to keep others."""
        folders, files = frozenset(self._scope.folders), frozenset(self._scope.files)
        unread = frozenset(os.fsencode(each.path) for each in self.tally.unreadable)
        out = frozenset(self.state.excluded)
        gone: dict[bytes, list[bytes]] = {}
        for path in self._known:
            if path in self._seen or path in self._moved:
                continue
            above = list(upwards(path))
            if self._is_left_out(path, above):
                self._forget([path])
                self.left_out += 1
                continue
            if not out.isdisjoint(above):
                self._forget([path])  # removed, by a run that was killed before it was done
            top = next((folder for folder in above if folder in folders or folder in files), None)
            lost = unread.intersection(above)
            if top is not None and all(is_gone(folder) for folder in lost) and is_gone(path):
                gone.setdefault(top, []).append(path)
        reasons = unanswered(folder for folder in unread & folders if not is_gone(folder))
        if not self._options.prune:
            reasons += self._reasons(gone)
        for paths in gone.values():
            self.removed += len(paths)
            self._forget(paths)
        return reasons

    def _is_left_out(self, path: bytes, above: list[bytes]) -> bool:
        """Tell whether patterns leave out an image that was not named itself."""
        folder, name = os.path.split(path)
        top = next((each for each in above if each in self.state.folders), None)
        if top is None or path in self.state.files:
            return False
        exclusions = self._scope.exclusions
        return exclusions.has_file(folder, name) or exclusions.covers(folder, top)

    def _reasons(self, gone: dict[bytes, list[bytes]]) -> Iterator[str]:
        """Leave out images that may be on an unplugged drive, and yield the reasons."""
        for top, paths in list(gone.items()):
            all_gone = not any(is_at(path, top) for path in self._seen)
            if is_lost(top) or (all_gone and top in self._scope.folders):
                yield (
                    f"{os.fsdecode(top)} no longer holds any of its {len(paths):,} images: "
                    "they are kept"
                )
                del gone[top]
        lost = sum(map(len, gone.values()))
        if lost and 2 * lost >= self._count:
            yield f"{lost:,} of {self._count:,} images disappeared at once: they are kept"
            gone.clear()

    def _forget(self, paths: Iterable[bytes]) -> None:
        self._store.delete(row.id for path in paths for row in self._known[path])


def remove(store: Store, state: State, paths: Sequence[str | os.PathLike[str]]) -> int:
    """Remove the images at `paths`, and keep them out; see `imgsearch.indexing.remove.remove`.

    All rows are scanned, but only the removed ones take memory.
    """
    given = {path: {plain_path(path), real_path(path), resolved_path(path)} for path in paths}
    found: dict[str | os.PathLike[str], list[bytes]] = {path: [] for path in given}
    ids = []
    for row in store.rows():
        for path, places in given.items():
            at = [place for place in places if is_at(row.path, place)]
            if not at and fnmatch.fnmatchcase(row.path, plain_path(path)):
                at = [row.path]
            if at:
                found[path] += at
                ids.append(row.id)
    for path, places in given.items():
        found[path] += [place for place in places if place in {*state.folders, *state.files}]
        if not found[path]:
            raise InputError(
                f"{os.fsdecode(path)}: the collection has no image there; nothing was removed"
            )
    return _exclude(store, state, ids, {place for places in found.values() for place in places})


def remove_ids(store: Store, state: State, ids: Sequence[int]) -> int:
    """Remove those images that exist, and keep them out."""
    rows = store.rows_of(ids)
    return _exclude(store, state, [row.id for row in rows], {row.path for row in rows})


def _exclude(store: Store, state: State, ids: Sequence[int], out: set[bytes]) -> int:
    """Remove images, and keep out the paths `out`; return how many there were."""
    state = replace(
        state,
        folders=tuple(path for path in state.folders if not any(is_at(path, o) for o in out)),
        files=tuple(path for path in state.files if not any(is_at(path, o) for o in out)),
        excluded=tuple(sorted({*state.excluded, *out})),
    )
    write_state(store, state)  # first: a crash may leave images there, which the next run drops
    store.delete(dict.fromkeys(ids))
    store.flush()
    return len(set(ids))
