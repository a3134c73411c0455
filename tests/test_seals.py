from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mdprop import seals
from mdprop.seals import BLANK, BrokenSeal, seal, seal_text, sealed_as, verify

PLACES = [0, 1, 4090, 2**16 - len(BLANK)]


def sealed(path: Path, before: int, after: int) -> Path:
    path.write_bytes(b"a" * before + BLANK.encode() + b"b" * after)
    seal(path)
    return path


@pytest.mark.parametrize("before", PLACES)
@pytest.mark.parametrize("after", [*PLACES, 2**16])
@pytest.mark.parametrize("piece", [100, 2**22])
def test_any_place_near_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int, piece: int
) -> None:
    monkeypatch.setattr(seals, "PIECE", piece)
    path = sealed(tmp_path / "a", before, after)
    content = path.read_bytes()
    assert len(content) == before + len(BLANK) + after
    assert content[before : before + 7] == b"sealed:"
    assert verify(path) == sealed_as(path) == content[before + 7 : before + len(BLANK)].decode()
    assert seal_text("a" * before + BLANK + "b" * after).encode() == content


def test_the_digest_is_that_of_the_digests_of_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "PIECE", 50)
    content = b"a" * 10 + BLANK.encode() + b"b" * 50
    pieces = (content[:50], content[50:100], content[100:])
    expected = hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()
    assert verify(sealed(tmp_path / "a", 10, 50)) == expected


def test_every_bit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "PIECE", 50)
    path = sealed(tmp_path / "a", 30, 40)
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(BrokenSeal, match=r"^is damaged"):
            verify(path)
    path.write_bytes(content)
    verify(path)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"b", lambda c: b"", lambda c: c[1:]])
def test_so_does_every_byte(tmp_path: Path, change: object) -> None:
    path = sealed(tmp_path / "a", 30, 40)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(BrokenSeal, match=r"^is damaged"):
        verify(path)


def test_a_blank_seal_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(BLANK)
    with pytest.raises(BrokenSeal, match="is damaged: its bytes are not those"):
        verify(tmp_path / "a")


def test_files_without_a_seal(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}")
    with pytest.raises(BrokenSeal, match="of another version of mdprop: it has no seal"):
        verify(tmp_path / "a")
    sealed(tmp_path / "b", 1, 1)
    with pytest.raises(BrokenSeal, match="has no room for a seal"):
        seal(tmp_path / "b")
