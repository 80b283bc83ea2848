"""Archives are read in place: every member's own bytes, by any way that archives are packed, or a reason why not."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support import parquet_tools

from ferbatch.core import archives, containers
from ferbatch.core.errors import UsageError
from ferbatch.core.files import stat_of, version_of

SUFFIXES = [suffix.decode() for suffix in containers.CONTAINERS]
MODES = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "tbz2": "w:bz2", "xz": "w:xz", "txz": "w:xz"}
NAMES = ("b/2.jpg", "a/1.jpg", "é.png", "a/" + "x" * 150 + ".jpg", "empty.gif")


@pytest.fixture(autouse=True)
def _anew() -> None:
    archives._open_ones.clear()


def zstandard() -> Any:
    return pytest.importorskip("zstandard", reason="zstandard is installed with ferbatch[zstd]")


def content(name: str) -> bytes:
    return b"" if name.startswith("empty") else random.Random(name).randbytes(5_000) + b"\0" * 5_000


def packed(path: Path, names: tuple[str, ...] = NAMES) -> bytes:
    """An archive of the kind that its suffix says, with a member for each name; its path."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for at, name in enumerate(names):
                way = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[at % 2]
                archive.writestr(zipfile.ZipInfo(name), content(name), compress_type=way)
    elif path.suffix == ".parquet":
        pa, pq = parquet_tools()
        images = [{"bytes": content(name), "path": name} for name in names]
        pq.write_table(pa.table({"label": range(len(names)), "image": images}), path, row_group_size=2)
    else:
        stream = io.BytesIO()
        zstd = path.suffix in (".zst", ".tzst")
        mode = "w" if zstd else MODES.get(path.suffix[1:], "w")
        with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
            for at, name in enumerate(names):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content(name)), 1_000_000 + at
                tar.addfile(info, io.BytesIO(content(name)))
        data = stream.getvalue()
        if zstd:
            data = zstandard().ZstdCompressor().compress(data)
        path.write_bytes(data)
    return os.fsencode(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_members_bytes_are_its_own_in_any_order(tmp_path: Path, suffix: str) -> None:
    path = packed(tmp_path / f"x{suffix}")
    assert [name.decode() for name in archives.look_into(path)[0]] == list(NAMES)
    for name in (*NAMES, *reversed(NAMES)):
        file = path + b"/" + name.encode()
        assert archives.read(file) == content(name), name
        info = stat_of(file)
        assert info
        assert stat.S_ISREG(info.st_mode)
        assert info.st_size == len(content(name)) or suffix == ".parquet"


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_what_is_not_there_is_not_found(tmp_path: Path, suffix: str) -> None:
    path = packed(tmp_path / f"x{suffix}")
    for name in (b"/none.jpg", b"/a", b"/a/", b"/../x.jpg", b"/a/1.jpg/2.jpg", b"/"):
        assert stat_of(path + name) is None
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            archives.read(path + name)
    assert stat_of(os.fsencode(tmp_path / "plain.txt") + b"/x.jpg") is None


def test_no_name_leads_out_of_its_archive_and_those_that_are_the_same_are_told_apart(tmp_path: Path) -> None:
    names = ("../../etc/passwd", "/abs.jpg", "a/../b.jpg", "b.jpg", "./b.jpg", "a//c.jpg")
    for suffix in (".zip", ".tar"):
        path = packed(tmp_path / f"x{suffix}", names)
        found = archives.look_into(path)[0]
        assert found == [b"etc/passwd", b"abs.jpg", b"b.jpg", b"b.jpg#2", b"b.jpg#3", b"a/c.jpg"]
        for name, called in zip(names, found, strict=True):
            assert archives.read(path + b"/" + called) == content(name)


def test_folders_links_and_devices_are_no_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"{kind!r}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert not archives.look_into(os.fsencode(tmp_path / "x.tar"))[0]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("folder/", b"")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, b"/etc/passwd")
    assert not archives.look_into(os.fsencode(tmp_path / "x.zip"))[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, suffix: str) -> None:
    if suffix.endswith("zst"):
        zstandard()
    path = tmp_path / f"x{suffix}"
    for data in (b"", b"no archive at all" * 100):
        path.write_bytes(data)
        if data or suffix in (".zip", ".parquet"):
            with pytest.raises(UsageError, match="cannot be read as an archive"):
                archives.look_into(os.fsencode(path))


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_damage_is_an_error_or_does_no_harm(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    packed(path)
    whole = path.read_bytes()
    random_ = random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        start = random_.randrange(len(data))
        data[start : start + 20] = random_.randbytes(20)
        path.write_bytes(data[: random_.choice([len(data), start + 20])])
        archives._open_ones.clear()
        try:
            found = archives.look_into(os.fsencode(path))[0]
        except UsageError:
            continue
        for name in found:
            try:
                data_of = archives.read(os.fsencode(path) + b"/" + name)
            except OSError:
                continue
            if name.decode("utf-8", "replace") in NAMES:
                assert data_of == content(name.decode())


def test_encrypted_and_oddly_packed_members_say_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("lzma.jpg", b"x" * 100, compress_type=zipfile.ZIP_LZMA)
        archive.writestr("secret.jpg", b"x" * 100)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    for name in ("lzma", "secret"):
        with pytest.raises(archives.ArchiveError, match="encrypted"):
            archives.read(os.fsencode(tmp_path / f"x.zip/{name}.jpg"))


def test_a_zips_sizes_are_not_trusted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(50_000_000))
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1_000).to_bytes(4, "little")  # it says to be small
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(archives.ArchiveError, match="checksum"):
        archives.read(os.fsencode(tmp_path / "x.zip/bomb.jpg"))


def test_an_archive_that_changes_is_not_read_on(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar")
    assert archives.read(path + b"/a/1.jpg")
    before = version_of(path + b"/a/1.jpg")
    packed(tmp_path / "x.tar", ("a/2.jpg", "a/1.jpg"))
    with pytest.raises(archives.ArchiveError, match="changed"):
        archives.read(path + b"/a/1.jpg")
    archives._open_ones.clear()
    assert archives.read(path + b"/a/1.jpg") == content("a/1.jpg")
    assert version_of(path + b"/a/1.jpg") == before  # by its own size and time, not by where it is


def _read(path: bytes, name: str) -> bool:
    return all(archives.read(path + b"/" + name.encode()) == content(name) for _ in range(200))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_processes_that_share_an_archive_do_not_move_each_others_place(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar")
    assert archives.read(path + b"/a/1.jpg")  # it is open before the others are begun
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(pool.starmap(_read, [(path, name) for name in NAMES[:4]]))
