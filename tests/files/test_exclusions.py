"""Patterns: which paths they match, and how those of a collection change."""

from __future__ import annotations

import unicodedata

import pytest

from imgsearch.errors import SettingError
from imgsearch.files.exclusions import DEFAULTS, Exclusions, changed_patterns


def leaves_out(pattern: str, path: str, *, folder: bool = False) -> bool:
    exclusions = Exclusions([pattern])
    if folder:
        return exclusions.has_folder(path.encode())
    above, _, name = path.encode().rpartition(b"/")
    return exclusions.has_file(above, name)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.psd", "/photos/a.psd"),
        ("*.psd", "/photos/A.PSD"),
        ("IMG_?.jpg", "/photos/IMG_1.jpg"),
        ("[ab].jpg", "/photos/a.jpg"),
        ("[!ab].jpg", "/photos/c.jpg"),
        ("raw/*.jpg", "/photos/raw/a.jpg"),
        ("raw/**/*.jpg", "/photos/raw/deep/er/a.jpg"),
        ("raw/**/*.jpg", "/photos/raw/a.jpg"),
        ("/photos/a.jpg", "/photos/a.jpg"),
        ("/photos/**", "/photos/below/a.jpg"),
        ("s3://bucket/private/*", "s3://bucket/private/a.jpg"),
        ("private/*", "s3://bucket/private/a.jpg"),
        ("gr\u00fcn*", "/photos/" + unicodedata.normalize("NFD", "gr\u00fcn.jpg")),
        ("*.jpg", "/photos/line\nbreak.jpg"),
        ("[.jpg", "/photos/[.jpg"),
    ],
)
def test_a_pattern_matches_the_last_parts_of_a_path(pattern: str, path: str) -> None:
    assert leaves_out(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.psd", "/photos/a.psd.jpg"),
        ("psd", "/photos/a.psd"),
        ("raw/*.jpg", "/photos/raw/deep/a.jpg"),
        ("raw/*.jpg", "/photos/draw/a.jpg"),
        ("/photos/a.jpg", "/more/photos/a.jpg"),
        ("photos/", "/photos"),
        ("s3://bucket/private/*", "s3://other/private/a.jpg"),
    ],
)
def test_a_pattern_matches_nothing_else(pattern: str, path: str) -> None:
    assert not leaves_out(pattern, path)


def test_a_pattern_for_folders_is_for_folders_only() -> None:
    assert leaves_out("previews/", "/photos/previews", folder=True)
    assert not leaves_out("previews/", "/photos/previews")
    assert leaves_out("previews", "/photos/previews", folder=True)
    assert leaves_out("raw/previews/", "/photos/raw/previews", folder=True)


def test_a_name_that_is_not_utf_8_is_matched() -> None:
    assert Exclusions(["*.jpg"]).has_file(b"/photos", b"\xff.jpg")
    assert Exclusions(["\udcff*"]).has_file(b"/photos", b"\xff.jpg")


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not leaves_out("*a" * 30 + "b", "/photos/" + "a" * 200)
    assert not leaves_out("**/" * 30 + "b", "/a" * 200)


@pytest.mark.parametrize(
    "folder",
    [
        *("@eaDir", ".thumbnails", ".Trash-1000", ".Trashes", "$RECYCLE.BIN", "lost+found"),
        *("@Recycle", "#recycle", ".AppleDouble", "__MACOSX", ".@__thumb", "My.lrdata", ".hidden"),
    ],
)
def test_what_programs_keep_for_themselves_is_left_out_by_default(folder: str) -> None:
    assert Exclusions().has_folder(f"/photos/{folder}".encode())
    assert Exclusions().covers(f"/photos/{folder}/below".encode(), b"/photos")


def test_what_was_named_itself_is_not_left_out_for_its_own_name() -> None:
    assert not Exclusions().covers(b"/photos/@eaDir", b"/photos/@eaDir")
    assert not Exclusions().covers(b"/@eaDir/photos/below", b"/@eaDir/photos")


def test_a_default_pattern_is_switched_off_and_on_again() -> None:
    kept = changed_patterns(((), ()), (), ["@eadir"])
    assert kept == ((), ("@eaDir/",))
    assert not Exclusions.of(*kept).has_folder(b"/photos/@eaDir")
    assert Exclusions.of(*kept).has_folder(b"/photos/lost+found")
    assert changed_patterns(kept, ["@eaDir"], ()) == ((), ())


def test_patterns_are_added_once_and_dropped() -> None:
    kept = changed_patterns(((), ()), ["*.psd", "raw/", "*.PSD"], ())
    assert kept == (("*.PSD", "raw/"), ())
    assert changed_patterns(kept, (), ["raw"]) == (("*.PSD",), ())


@pytest.mark.parametrize("pattern", ["", "/", "//", "a\0b"])
def test_a_pattern_that_says_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(SettingError, match=r"the pattern .* is not"):
        changed_patterns(((), ()), [pattern], ())


def test_only_a_pattern_in_force_can_be_dropped_and_the_message_lists_them() -> None:
    with pytest.raises(SettingError, match="there is no such pattern") as caught:
        changed_patterns((("*.psd",), ()), (), ["*.xcf"])
    assert all(pattern in str(caught.value) for pattern in [*DEFAULTS, "*.psd"])
