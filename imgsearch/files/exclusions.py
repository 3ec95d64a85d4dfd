"""Exclude files and folders, wherever they are found, by patterns of their paths.

A pattern is compared with as many trailing parts of a path as it has parts itself: `*.psd` with the
name of each file and folder, `raw/*.jpg` with the files of every folder `raw`. A pattern that
begins with `/`, or is a URL, is compared with the whole path. `*`, `?` and `[...]` work as in
`fnmatch`, except that they never match `/`; `**` matches any number of folders. A pattern that ends
with `/` matches only folders. Matching ignores upper and lower case and the form of Unicode.
Everything below a folder that matches is excluded.
"""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from imgsearch.errors import SettingError

__all__ = ["BY_DEFAULT", "DEFAULTS", "Exclusions", "changed_patterns"]

#: Patterns excluded unless included explicitly: programs' own files, which are not photographs.
DEFAULTS = (
    "._*",  # AppleDouble: metadata of files that macOS writes to foreign drives
    ".*/",  # hidden folders
    ".AppleDouble/",
    "__MACOSX/",
    ".thumbnails/",
    "@eaDir/",  # Synology: thumbnails
    ".@__thumb/",  # QNAP: thumbnails
    "*.lrdata/",  # Lightroom: previews
    "*.photoslibrary/resources/",  # Photos of macOS: previews; its originals are indexed
    ".Trash*/",
    "$RECYCLE.BIN/",
    "@Recycle/",
    "#recycle/",
    "#snapshot/",  # Synology: earlier states of everything
    "lost+found/",
)


class Exclusions:
    """The exclusion patterns in force."""

    def __init__(self, patterns: Iterable[str] = DEFAULTS) -> None:
        """Use exactly these patterns."""
        self.patterns = tuple(patterns)
        plain = [pattern for pattern in self.patterns if not pattern.endswith("/")]
        self._files = _Matcher(plain)
        self._folders = _Matcher(pattern.rstrip("/") for pattern in self.patterns)

    @classmethod
    def of(cls, exclude: Sequence[str], include: Sequence[str]) -> Exclusions:
        """Return those of a collection: the defaults except `include`, and `exclude`."""
        let_in = set(map(_key, include))
        return cls([*(each for each in DEFAULTS if _key(each) not in let_in), *exclude])

    def has_file(self, folder: bytes, name: bytes) -> bool:
        """Tell whether a file is excluded, given the path of its folder and its name."""
        return self._files.matches(folder, name)

    def files_of(self, folder: bytes, names: Iterable[bytes]) -> frozenset[bytes]:
        """Return the excluded names among the names of a folder's files."""
        return frozenset(self._files.matching(folder, names))

    def has_folder(self, path: bytes) -> bool:
        """Tell whether a folder is excluded because of its own path."""
        return self._folders.matches(*os.path.split(path))

    def covers(self, path: bytes, top: bytes) -> bool:
        """Tell whether a folder below `top`, or any folder between the two, is excluded."""
        while len(path) > len(top):
            if self.has_folder(path):
                return True
            path = os.path.dirname(path)
        return False


class _Matcher:
    """A matcher that compares paths with patterns."""

    def __init__(self, patterns: Iterable[str]) -> None:
        names: list[str] = []
        paths: list[str] = []
        for pattern in patterns:
            (paths if "/" in pattern else names).append(pattern)
        self._name = _name_pattern(names)
        self._paths = [_PathPattern(pattern) for pattern in paths]

        # There are a million names; most are ASCII and need not be decoded.
        self._ascii: re.Pattern[bytes] | None = None
        if self._name is not None and self._name.pattern.isascii():
            self._ascii = re.compile(self._name.pattern.encode(), re.IGNORECASE)

    def matching(self, folder: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the names that a pattern matches."""
        if self._paths or self._ascii is None:
            yield from (name for name in names if self.matches(folder, name))
            return
        match = self._ascii.match
        for name in names:
            if match(name) if name.isascii() else self.matches(folder, name):
                yield name

    def matches(self, folder: bytes, name: bytes) -> bool:
        """Tell whether a pattern matches the file or folder of this name in a folder."""
        if self._name is not None and self._name.match(_plain(name)):
            return True
        if not self._paths:
            return False
        parts = _plain(os.path.join(folder, name)).split("/")
        return any(pattern.matches(parts) for pattern in self._paths)


def changed_patterns(
    kept: tuple[Sequence[str], Sequence[str]], exclude: Iterable[str], include: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patterns to keep from now on, as the arguments of `Exclusions.of`.

    Args:
        kept: Patterns that were kept until now.
        exclude: Patterns to add; a default pattern that was dropped applies again.
        include: Patterns to drop, whether they were given before or are default ones.

    Raises:
        SettingError: If a pattern is empty, or a pattern to drop is not in force.
    """
    own, off = ({_key(each): each for each in patterns} for patterns in kept)
    defaults = {_key(each): each for each in DEFAULTS}
    for pattern in map(_checked, include):
        key = _key(pattern)
        if key in own:
            del own[key]
        elif key in defaults:
            off[key] = defaults[key]
        else:
            there = ", ".join(Exclusions.of(tuple(own.values()), tuple(off.values())).patterns)
            raise SettingError(
                f"--include {pattern}: there is no such pattern; the patterns are: {there}"
            )
    for pattern in map(_checked, exclude):
        key = _key(pattern)
        off.pop(key, None)
        if key not in defaults:
            own[key] = pattern
    return tuple(own.values()), tuple(off.values())


def _checked(pattern: str) -> str:
    if not isinstance(pattern, str):
        raise SettingError(f"the pattern {pattern!r} is not text; give one such as '*.psd'")
    if not pattern.strip("/") or "\0" in pattern:
        raise SettingError(
            f"the pattern {pattern!r} is not valid; give one such as '*.psd' or 'previews/'"
        )
    return os.path.expanduser(pattern.removeprefix("./"))


def _key(pattern: str) -> str:
    """Return a key that is the same for patterns that people consider the same."""
    return unicodedata.normalize("NFC", pattern).rstrip("/").casefold()


def _plain(path: bytes) -> str:
    text = os.fsdecode(path)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _name_pattern(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return an expression for names that match any of the patterns; None if there are none."""
    translated = [_translated(pattern) for pattern in patterns]
    return re.compile("|".join(translated), re.IGNORECASE) if translated else None


@lru_cache(maxsize=1_024)
def _translated(pattern: str) -> str:
    return fnmatch.translate(_plain(os.fsencode(pattern)))


class _PathPattern:
    """A pattern with several parts."""

    def __init__(self, pattern: str) -> None:
        """Parse the pattern; the first part of an absolute path is the empty one before `/`."""
        self._whole = pattern.startswith("/") or "://" in pattern
        self._parts = [
            None if part == "**" else _name_pattern([part]) for part in pattern.split("/")
        ]
        if not self._whole:
            self._parts.insert(0, None)

    def matches(self, parts: Sequence[str]) -> bool:
        """Tell whether the pattern matches a path that was split at each `/`."""
        ends = {0}  # How many parts of the path the pattern so far may match.
        for pattern in self._parts:
            if pattern is None:
                ends = set(range(min(ends), len(parts) + 1))
            else:
                ends = {end + 1 for end in ends if end < len(parts) and pattern.match(parts[end])}
            if not ends:
                return False
        return len(parts) in ends


#: The exclusions of a collection without patterns of its own.
BY_DEFAULT = Exclusions()
