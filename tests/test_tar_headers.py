"""Members of a tar are found as tarfile finds them, whatever wrote the tar."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionedit.data import tar_headers
from regionedit.data.tar_headers import tar_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def write(path, members: list[tuple[str, bytes]], kind: str, mtime: float = 0) -> None:
    with tarfile.open(path, "w", format=FORMATS[kind]) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            tar.addfile(member, io.BytesIO(data))


def by_tarfile(path) -> list[tuple[str, int, int]]:
    with tarfile.open(path, "r:") as tar:
        return [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text("abé/.0", min_size=1, max_size=150), st.integers(0, 1100)), max_size=6),
    st.sampled_from(["gnu", "pax"]),
    st.sampled_from([0, 1700000000.25]),
)
def test_the_same_members_as_tarfile(tmp_path_factory, members, kind, mtime):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    write(path, [(name, b"x" * length) for name, length in members], kind, mtime)
    assert list(tar_members(path)) == by_tarfile(path)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mtime", [0, 1.5])  # webdataset writes fractions, for which pax has its own headers
def test_an_ordinary_shard_needs_no_tarfile(tmp_path, monkeypatch, kind, mtime):
    members = [(f"{i:09d}.{suffix}", b"x" * 700 * i) for i in range(4) for suffix in ("jpg", "txt", "json")]
    write(tmp_path / "a.tar", members, kind, mtime)
    expected = by_tarfile(tmp_path / "a.tar")
    monkeypatch.setattr(tar_headers, "_by_tarfile", lambda *args: pytest.fail("read by tarfile"))
    assert list(tar_members(tmp_path / "a.tar")) == expected


def test_an_extended_header_that_changes_the_name_or_size_is_believed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("short.txt")
        member.size, member.pax_headers = 3, {"path": "other.txt", "mtime": "1.5"}
        tar.addfile(member, io.BytesIO(b"abc"))
    assert [name for name, _, _ in tar_members(tmp_path / "a.tar")] == ["other.txt"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4 * 1024 + 1023), st.integers(1, 255))
def test_a_changed_byte_is_told_apart_or_harmless(tmp_path_factory, place, change):
    """A header that does not bear its checksum is never believed; contents are nobody's business here."""
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    write(path, [(f"{i}.txt", b"y" * 512) for i in range(4)], "ustar")
    sound, data = list(tar_members(path)), bytearray(path.read_bytes())
    data[place] ^= change
    path.write_bytes(data)
    try:
        found = list(tar_members(path))
    except tarfile.TarError:
        return
    assert found == sound
