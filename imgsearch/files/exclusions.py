"""Which files and folders are left out wherever they are come across: by patterns of their paths.

A pattern is compared with as many of the last parts of a path as it has itself: `*.psd` with the
name of each file and folder, `raw/*.jpg` with the files of every folder `raw`. One that begins with
`/`, or is a URL, is compared with the whole path. `*`, `?` and `[...]` are those of `fnmatch`, but
for `/`, which they never stand for; `**` stands for any number of folders. With `/` at its end it
is for folders only. Upper and lower case are the same, and so are the forms of Unicode. Of a folder
that matches, all that is below is left out.
"""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from imgsearch.errors import SettingError

__all__ = ["BY_DEFAULT", "DEFAULTS", "Exclusions", "changed_patterns"]

#: What is left out unless it is let in: what programs keep for themselves, and no photograph.
DEFAULTS = (
    "._*",  # AppleDouble: what macOS keeps of a file on drives that are not its own
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
    "#snapshot/",  # Synology: all that was there before
    "lost+found/",
)


class Exclusions:
    """Patterns in force."""

    def __init__(self, patterns: Iterable[str] = DEFAULTS) -> None:
        """Put these in force, and no others."""
        self.patterns = tuple(patterns)
        plain = [pattern for pattern in self.patterns if not pattern.endswith("/")]
        self._files = _Matcher(plain)
        self._folders = _Matcher(pattern.rstrip("/") for pattern in self.patterns)

    @classmethod
    def of(cls, exclude: Sequence[str], include: Sequence[str]) -> Exclusions:
        """Return those of a collection: `exclude` besides the default ones, but for `include`."""
        let_in = set(map(_key, include))
        return cls([*(each for each in DEFAULTS if _key(each) not in let_in), *exclude])

    def has_file(self, folder: bytes, name: bytes) -> bool:
        """Tell whether a file is left out, given the path of its folder and its name."""
        return self._files.matches(folder, name)

    def files_of(self, folder: bytes, names: Iterable[bytes]) -> frozenset[bytes]:
        """Return those of the names of a folder's files that are left out."""
        return frozenset(self._files.matching(folder, names))

    def has_folder(self, path: bytes) -> bool:
        """Tell whether a folder is left out because of its own path."""
        return self._folders.matches(*os.path.split(path))

    def covers(self, path: bytes, top: bytes) -> bool:
        """Tell whether a folder at or below `top` is left out, or one between the two."""
        while len(path) > len(top):
            if self.has_folder(path):
                return True
            path = os.path.dirname(path)
        return False


class _Matcher:
    """Compares paths with patterns."""

    def __init__(self, patterns: Iterable[str]) -> None:
        names: list[str] = []
        paths: list[str] = []
        for pattern in patterns:
            (paths if "/" in pattern else names).append(pattern)
        self._name = _name_pattern(names)
        self._paths = [_PathPattern(pattern) for pattern in paths]

        # Most names are ASCII, and need not be decoded: there are a million of them.
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
        """Tell whether a pattern matches what has a name in a folder."""
        if self._name is not None and self._name.match(_plain(name)):
            return True
        if not self._paths:
            return False
        parts = _plain(os.path.join(folder, name)).split("/")
        return any(pattern.matches(parts) for pattern in self._paths)


def changed_patterns(
    kept: tuple[Sequence[str], Sequence[str]], exclude: Iterable[str], include: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patterns to keep from now on, as of `Exclusions.of`.

    Args:
        kept: those that were kept up to now.
        exclude: patterns to add; a default pattern that was dropped applies again.
        include: patterns to drop, whether given before or default.

    Raises:
        SettingError: a pattern is empty, or one to be let in is not in force.
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
                f"--include {pattern}: no such pattern is in force; these are: {there}"
            )
    for pattern in map(_checked, exclude):
        key = _key(pattern)
        off.pop(key, None)
        if key not in defaults:
            own[key] = pattern
    return tuple(own.values()), tuple(off.values())


def _checked(pattern: str) -> str:
    if not isinstance(pattern, str):
        raise SettingError(f"a pattern is {pattern!r}; it must be text, such as '*.psd'")
    if not pattern.strip("/") or "\0" in pattern:
        raise SettingError(f"a pattern is {pattern!r}; give one such as '*.psd' or 'previews/'")
    return os.path.expanduser(pattern.removeprefix("./"))


def _key(pattern: str) -> str:
    """Return what is the same of patterns that people take for one."""
    return unicodedata.normalize("NFC", pattern).rstrip("/").casefold()


def _plain(path: bytes) -> str:
    text = os.fsdecode(path)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _name_pattern(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches the name that any of some patterns of names does; None without any."""
    translated = [fnmatch.translate(_plain(os.fsencode(pattern))) for pattern in patterns]
    return re.compile("|".join(translated), re.IGNORECASE) if translated else None


class _PathPattern:
    """A pattern of several parts."""

    def __init__(self, pattern: str) -> None:
        """Read it; a path begins with what is before its first `/`, which is nothing, too."""
        self._whole = pattern.startswith("/") or "://" in pattern
        self._parts = [
            None if part == "**" else _name_pattern([part]) for part in pattern.split("/")
        ]
        if not self._whole:
            self._parts.insert(0, None)

    def matches(self, parts: Sequence[str]) -> bool:
        """Tell whether it matches a path that was split at each `/`."""
        ends = {0}  # how many of the parts may stand for what of the pattern was looked at
        for pattern in self._parts:
            if pattern is None:
                ends = set(range(min(ends), len(parts) + 1))
            else:
                ends = {end + 1 for end in ends if end < len(parts) and pattern.match(parts[end])}
            if not ends:
                return False
        return len(parts) in ends


#: Those of a collection of which nothing else was said.
BY_DEFAULT = Exclusions()
