"""What a file system says of a file is bounded where it enters."""

from __future__ import annotations

import os

import pytest

from imgsearch.files.stamps import LARGEST, Stamp, is_settled, stamp_of, trusted_time

NOW = 1_700_000_000 * 10**9


def said(**fields: int) -> os.stat_result:
    """Return what `os.stat` says, with some of it said otherwise."""
    there = os.stat(".")
    names = ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size")
    plain = [fields.get(name, getattr(there, name)) for name in names]
    extra = {name: fields.get(name, 0) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
    return os.stat_result([*plain, 0, 0, 0], extra)


@pytest.mark.parametrize("value", [-(2**70), -(2**63), 2**63, 2**64 - 1, 2**80])
def test_whatever_is_said_fits_into_64_bits(value: int) -> None:
    stamp = stamp_of(said(st_size=value, st_mtime_ns=value, st_ctime_ns=value))
    nearest = LARGEST if value > 0 else -LARGEST
    assert (stamp.mtime_ns, stamp.ctime_ns) == (nearest, nearest)
    assert stamp.size == (LARGEST if value > 0 else 0)
    assert trusted_time(value, NOW) == nearest


@pytest.mark.parametrize("inode", [0, 1, LARGEST, 2**63, 2**64 - 1])
def test_inode_numbers_of_64_bits_fit_and_stay_different(inode: int) -> None:
    kept = stamp_of(said(st_ino=inode)).inode
    assert kept is not None
    assert -(2**63) <= kept <= LARGEST
    assert kept % 2**64 == inode


def test_what_fits_is_kept_as_it_is() -> None:
    facts = {"st_size": LARGEST, "st_mtime_ns": -LARGEST, "st_ctime_ns": LARGEST, "st_ino": 7}
    assert stamp_of(said(**facts)) == Stamp(LARGEST, -LARGEST, LARGEST, 7)


@pytest.mark.parametrize(("seconds", "settled"), [(-5, False), (0, False), (1, False), (3, True)])
def test_a_file_is_settled_once_its_time_is_older_than_the_coarsest_clock(
    seconds: int, settled: bool
) -> None:
    assert is_settled(Stamp(1, NOW - seconds * 10**9), NOW) == settled


def test_a_file_without_a_time_is_never_settled() -> None:
    assert not is_settled(Stamp(1, None), NOW)
