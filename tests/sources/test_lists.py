"""Lists on stdin, in whatever encoding they come."""

from __future__ import annotations

import codecs
from io import BytesIO
from pathlib import Path

import pytest

from ferbatch.core.errors import UsageError
from ferbatch.sources.listing import read_list


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_list_with_a_byte_order_mark_loses_no_image(line_end: str) -> None:
    Path("a.jpg").touch()
    text = line_end.join(["a.jpg", "ü b.jpg", ""])
    wanted = [b"a.jpg", "ü b.jpg".encode()]
    for data in (
        codecs.BOM_UTF8 + text.encode(),
        codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ):
        assert list(read_list(BytesIO(data), b"\n")) == wanted
    Path("\ufeffa.jpg").touch()  # a file that is really called so
    assert next(read_list(BytesIO(codecs.BOM_UTF8 + text.encode()), b"\n")) == "\ufeffa.jpg".encode()
    assert list(read_list(BytesIO(b"\xff\xfe.jpg\nb.jpg"), b"\n")) == [b"\xff\xfe.jpg", b"b.jpg"]


def test_a_long_list_in_utf16_is_read_across_its_pieces() -> None:
    names = [f"😀 {n:06}.jpg" for n in range(20_000)]
    data = "\n".join(names).encode("utf-16")
    assert [name.decode() for name in read_list(BytesIO(data), b"\n")] == names


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (codecs.BOM_UTF16_LE + "a.jpg\n".encode("utf-16-le") + b"\x00\xd8a\0", "UTF-16 does and goes on otherwise"),
        (codecs.BOM_UTF16_LE + "a.jpg\nb".encode("utf-16-le") + b"x", "ends within a character"),
        (codecs.BOM_UTF16_LE + "a\0.jpg\n".encode("utf-16-le"), "NUL bytes"),
        ("a.jpg\nb.jpg\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("a.jpg\r\nb.jpg\r\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        (b"a\0b\0", "--null"),
    ],
)
def test_a_list_that_cannot_be_read_is_told_why(data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        list(read_list(BytesIO(data), b"\n"))


def test_backslashes_of_windows_are_slashes_where_only_so_a_file_is_there() -> None:
    for name in ("sub/a.jpg", "sub/b.jpg", "sub\\b.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    lines = b"sub\\a.jpg\r\nsub\\b.jpg\r\nsub\\none.jpg\r\n"
    assert list(read_list(BytesIO(lines), b"\n")) == [b"sub/a.jpg", b"sub\\b.jpg", b"sub\\none.jpg"]
