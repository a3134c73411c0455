from __future__ import annotations

import hashlib
import io
import random
import socket
import socketserver
import stat
import tarfile
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdprop.data import archives, download
from mdprop.data.readers.archives import extract
from mdprop.data.readers.download import obtain
from mdprop.errors import DataError

FILES = {
    "set/images/1.jpg": b"one",
    "set/images/2.jpg": b"two" * 1000,
    "set/list.txt": b"",
    "beside.txt": b"x",
}
EXTRACTED = {"images/1.jpg": b"one", "images/2.jpg": b"two" * 1000, "list.txt": b"", "beside.txt": b"x"}
NOISE = random.Random(0).randbytes(50_000)  # does not compress


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


def write_tar(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], compression: str = "gz") -> Path:
    with tarfile.open(path, f"w:{compression}") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Sequence[tuple[str, bytes, int]]) -> Path:
    """Members of a name, content and Unix mode (0 for none)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that are there twice
        for name, content, mode in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, content)
    return path


def write_files(path: Path, files: dict[str, bytes] = FILES) -> Path:
    if path.suffix == ".zip":
        return write_zip(path, [(name, content, 0o100644) for name, content in files.items()])
    compression = {".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".tar": ""}[path.suffix]
    return write_tar(path, [(info(name), content) for name, content in files.items()], compression)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder: a file's content, None for what is no file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def files(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if content is not None}


@contextmanager
def nothing_changes(folder: Path) -> Iterator[None]:
    before = tree(folder)
    yield
    assert tree(folder) == before


# Extraction


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("there", [False, True])
def test_the_folder_of_the_same_name_becomes_the_root(tmp_path: Path, name: str, there: bool) -> None:
    archive = write_files(tmp_path / name)
    root = tmp_path / "raw" / "set"
    if there:
        root.mkdir(parents=True)
    extract(archive, root)
    assert files(root) == EXTRACTED
    assert archive.exists()
    assert {p.name for p in root.parent.iterdir()} == {"set"}


def test_without_such_a_folder_all_paths_stay(tmp_path: Path) -> None:
    extract(write_files(tmp_path / "a.tgz"), tmp_path / "other")
    assert files(tmp_path / "other") == FILES


def test_what_else_is_named_like_the_root_stays(tmp_path: Path) -> None:
    content = {"set": b"a file", "below/set/a": b"deeper", "set2/a": b"another"}
    extract(write_files(tmp_path / "a.tar", content), tmp_path / "set")
    assert files(tmp_path / "set") == content


def test_folders_with_dots_and_empty_ones(tmp_path: Path) -> None:
    folders = [(info(name, tarfile.DIRTYPE), b"") for name in ("./", "./set", "./set/empty", "./set/empty/")]
    extract(write_tar(tmp_path / "a.tar", [*folders, (info("./set//a.txt"), b"a")]), tmp_path / "set")
    assert tree(tmp_path / "set") == {"empty": None, "a.txt": b"a"}


def test_permissions_are_those_of_new_files(tmp_path: Path) -> None:
    members = [(info("d", tarfile.DIRTYPE, mode=0o7000), b""), (info("d/run", mode=0o6777), b"")]
    extract(write_tar(tmp_path / "a.tar", members), tmp_path / "tar")
    extract(write_zip(tmp_path / "a.zip", [("d/run", b"", 0o106777)]), tmp_path / "zip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for root in (tmp_path / "tar", tmp_path / "zip"):
        assert root.stat().st_mode == (root / "d").stat().st_mode == (tmp_path / "folder").stat().st_mode
        assert (root / "d/run").stat().st_mode == (tmp_path / "file").stat().st_mode


@pytest.mark.parametrize("exists", [False, True])
def test_a_root_that_is_a_link(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to("disk")
    extract(write_files(tmp_path / "a.tgz"), tmp_path / "set")
    assert (tmp_path / "set").is_symlink()
    assert files(tmp_path / "disk") == EXTRACTED


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_root_that_is_not_empty_is_refused(tmp_path: Path, what: str) -> None:
    archive = write_files(tmp_path / "a.tgz")
    root = tmp_path / "set"
    if what == "folder":
        root.mkdir()
    (root if what == "file" else root / "mine.txt").write_text("mine")
    with nothing_changes(tmp_path):
        with pytest.raises(DataError, match=f"^{root} exists and is not an empty folder: remove it"):
            extract(archive, root)
        with pytest.raises(DataError, match=f"^{root} exists and is not an empty folder: remove it"):
            obtain("http://127.0.0.1:1/a.zip", "0" * 32, None, root)


HOSTILE_TAR = {
    "parent": ([(info("set/../../../evil"), b"")], r"'set/\.\./\.\./\.\./evil' has \.\. in its path"),
    "absolute": ([(info("{outside}"), b"")], r"'/.*evil' has an absolute path"),
    "two_slashes": ([(info("//evil"), b"")], r"'//evil' has an absolute path"),
    "backslash": ([(info("..\\..\\evil"), b"")], r"evil' has a backslash"),
    "drive": ([(info("C:/evil"), b"")], r"'C:/evil' has a drive"),
    "drive_below": ([(info("set/c:evil"), b"")], r"'set/c:evil' has a drive"),
    "symlink": ([(info("set/l", tarfile.SYMTYPE, "images"), b"")], r"'set/l' is a symbolic link"),
    "through_link": (
        [(info("l", tarfile.SYMTYPE, "{parent}"), b""), (info("l/evil"), b"")],
        r"'l' is a symbolic link",
    ),
    "hardlink": ([(info("set/h", tarfile.LNKTYPE, "{canary}"), b"")], r"'set/h' is a hard link"),
    "character_device": ([(info("set/d", tarfile.CHRTYPE), b"")], r"'set/d' is no plain file"),
    "block_device": ([(info("set/d", tarfile.BLKTYPE), b"")], r"'set/d' is no plain file"),
    "fifo": ([(info("set/p", tarfile.FIFOTYPE), b"")], r"'set/p' is no plain file"),
    "unknown_kind": ([(info("set/u", b"Z"), b"")], r"'set/u' is no plain file"),
    "twice": ([(info("set/images/1.jpg"), b"other")], r"'set/images/1\.jpg' clashes"),
    "beside": ([(info("images/1.jpg"), b"other")], r"'images/1\.jpg' clashes"),
    "by_case": ([(info("set/IMAGES/1.jpg"), b"")], r"'set/IMAGES/1\.jpg' clashes"),
    "by_case_of_a_file": ([(info("set/List.txt"), b"")], r"'set/List\.txt' clashes"),
    "composed": ([(info("set/\u00e9"), b""), (info("set/e\u0301"), b"")], r"clashes"),
    "folder_on_file": ([(info("set/list.txt/a"), b"")], r"'set/list\.txt/a' clashes"),
    "file_on_folder": ([(info("set/images"), b"")], r"'set/images' clashes"),
    "no_name": ([(info("./"), b"")], r"'\./' clashes"),
}


@pytest.mark.parametrize("name", list(HOSTILE_TAR))
@pytest.mark.parametrize("last", [False, True])
def test_a_hostile_tar_is_refused_whole(tmp_path: Path, name: str, last: bool) -> None:
    hostile, message = HOSTILE_TAR[name]
    places = {"outside": tmp_path / "evil", "parent": tmp_path, "canary": tmp_path / "canary"}
    members = []
    for member, content in hostile:
        made = info(member.name.format(**places), member.type, member.linkname.format(**places))
        members.append((made, content))
    good = [(info(path), content) for path, content in FILES.items()]
    if name in ("twice", "beside", "by_case", "by_case_of_a_file", "folder_on_file", "file_on_folder"):
        last = True
    archive = write_tar(tmp_path / "a.tgz", good + members if last else members + good)
    places["canary"].write_text("safe")
    (tmp_path / "raw").mkdir()
    with nothing_changes(tmp_path), pytest.raises(DataError, match=rf"^{archive}: member .*{message}"):
        extract(archive, tmp_path / "raw" / "set")


HOSTILE_ZIP = {
    "parent": ("../evil", 0o100644, r"'\.\./evil' has \.\. in its path"),
    "absolute": ("/{outside}", 0o100644, r"evil' has an absolute path"),
    "backslash": ("..\\evil", 0, r"evil' has a backslash"),
    "drive": ("C:\\evil", 0, r"evil' has a backslash"),
    "drive_slash": ("C:/evil", 0, r"'C:/evil' has a drive"),
    "symlink": ("set/l", stat.S_IFLNK | 0o777, r"'set/l' is a symbolic link"),
    "fifo": ("set/p", stat.S_IFIFO | 0o644, r"'set/p' is no plain file"),
    "twice": ("set/images/1.jpg", 0o100644, r"'set/images/1\.jpg' clashes"),
}


@pytest.mark.parametrize("name", list(HOSTILE_ZIP))
def test_a_hostile_zip_is_refused_whole(tmp_path: Path, name: str) -> None:
    path, mode, message = HOSTILE_ZIP[name]
    member = (path.format(outside=tmp_path / "evil"), b"/etc", mode)
    good = [(path, content, 0) for path, content in FILES.items()]
    archive = write_zip(tmp_path / "a.zip", [*good, member])
    with nothing_changes(tmp_path), pytest.raises(DataError, match=rf"^{archive}: member .*{message}"):
        extract(archive, tmp_path / "set")


def test_zero_bytes_and_encryption_in_zip(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("set/a_b", b"", 0)])
    plain = archive.read_bytes()
    archive.write_bytes(plain.replace(b"a_b", b"a\0b"))
    with pytest.raises(DataError, match=r"member 'set/a\\x00b' has a backslash or a zero byte"):
        extract(archive, tmp_path / "set")
    directory = plain.index(b"PK\x01\x02")
    archive.write_bytes(plain[: directory + 8] + b"\1" + plain[directory + 9 :])
    with pytest.raises(DataError, match=r"member 'set/a_b' is encrypted"):
        extract(archive, tmp_path / "set")


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    member = info("set/huge")
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**20), "GNU.sparse.numblocks": "1"}
    archive = write_tar(tmp_path / "a.tar", [(member, b"")], "")
    with pytest.raises(DataError, match=r"'set/huge' is no plain file"):
        extract(archive, tmp_path / "set")


COMPONENTS = st.sampled_from(
    ["", ".", "..", "a", "A", "set", "b.txt", "C:", "d\\e", "\u00e9", "\udcff", "n\nl"]
)
NAMES = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join).filter(lambda name: name != "")


MEMBERS = st.lists(st.tuples(NAMES, st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE])), max_size=4)


@given(MEMBERS, st.booleans())
def test_names_stay_inside_or_nothing_is_written(members: list[tuple[str, bytes]], as_zip: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        archive = top / "archive"
        if as_zip:
            names = [name.replace("\udcff", "x") + "/" * (kind == tarfile.DIRTYPE) for name, kind in members]
            write_zip(archive, [(name, b"", 0) for name in names])
            plain = sum(not name.endswith("/") for name in names)
        else:
            write_tar(archive, [(info(name, kind), b"") for name, kind in members], "")
            plain = sum(kind == tarfile.REGTYPE for _, kind in members)
        root = top / "raw" / "set"
        before = tree(top)
        try:
            extract(archive, root)
        except DataError as error:
            assert "\n" not in str(error)
            assert tree(top) == before
        else:
            assert len(files(root)) == plain
            inside = {f"raw/set/{name}": content for name, content in tree(root).items()}
            assert tree(top) == before | {"raw": None, "raw/set": None} | inside


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip"])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str) -> None:
    archive = write_files(tmp_path / name, FILES | {"noise": NOISE})
    whole = archive.read_bytes()
    # The end of an uncompressed tar is padding up to 10 kB: from its second block on, it may be missing.
    end = len(whole.rstrip(b"\0")) if name == "a.tar" else len(whole)
    cuts = [0, 1, 3, 100, 512, 1024, 4096, end // 2, end // 512 * 512, end - 9, end - 1]
    for cut in cuts:
        archive.write_bytes(whole[:cut])
        with (
            nothing_changes(tmp_path),
            pytest.raises(DataError, match=rf"^{archive} is damaged or no archive \(.+\): remove it"),
        ):
            extract(archive, tmp_path / "set")


@given(st.data())
def test_damage_is_refused_or_does_no_harm(data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([".tgz", ".bz2", ".xz", ".zip"]))
    with tempfile.TemporaryDirectory() as folder:
        archive = write_files(Path(folder) / f"a{suffix}")
        content = bytearray(archive.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        archive.write_bytes(content)
        root = Path(folder) / "set"
        before = tree(Path(folder))
        try:
            extract(archive, root)
        except DataError as error:
            assert "\n" not in str(error)
            assert tree(Path(folder)) == before
        else:
            assert files(root) == EXTRACTED


@given(st.data())
def test_damaged_headers_do_no_harm(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = write_files(Path(folder) / "a.tar")
        content = bytearray(archive.read_bytes())
        at = data.draw(st.integers(0, 511))
        content[at] = data.draw(st.integers(0, 255))
        header = bytes(content[:148]) + b" " * 8 + bytes(content[156:512])
        content[148:156] = b"%06o\0 " % sum(header)  # so that tarfile believes the header
        archive.write_bytes(content)
        root = Path(folder) / "set"
        before = tree(Path(folder))
        try:
            extract(archive, root)
        except DataError as error:
            assert "\n" not in str(error)
            assert tree(Path(folder)) == before
        else:
            assert set(tree(Path(folder))) == {"a.tar", "set"} | {f"set/{name}" for name in tree(root)}


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    archive = write_files(tmp_path / "a.tar")
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"beside.txt", b"beside.TXT"))  # the header's checksum is wrong
    with pytest.raises(DataError, match=r"damaged or no archive \(its end is missing\)"):
        extract(archive, tmp_path / "set")


@pytest.mark.parametrize(("name", "at"), [("a.tgz", -8), ("a.tar.bz2", -10), ("a.tar.xz", -1)])
def test_a_wrong_checksum_inside_the_archive(tmp_path: Path, name: str, at: int) -> None:
    archive = write_files(tmp_path / name)
    content = bytearray(archive.read_bytes())
    content[at] ^= 255
    archive.write_bytes(content)
    with nothing_changes(tmp_path), pytest.raises(DataError, match=f"^{archive} is damaged or no archive"):
        extract(archive, tmp_path / "set")


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    for archive in (write_tar(tmp_path / "a.tar", []), write_zip(tmp_path / "a.zip", [])):
        with pytest.raises(DataError, match=f"^{archive} holds no files"):
            extract(archive, tmp_path / "set")


def test_files_that_are_missing_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}/no\.tgz: No such file or directory: mend the path"):
        extract(tmp_path / "no.tgz", tmp_path / "set")
    archive = write_files(tmp_path / "a.tgz")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with nothing_changes(tmp_path), pytest.raises(DataError, match=r"No space left on device: mend the path"):
        extract(archive, tmp_path / "set")


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    archive = write_files(tmp_path / "a.tgz", FILES | {"n" * 300: b""})
    with nothing_changes(tmp_path), pytest.raises(DataError, match="File name too long"):
        extract(archive, tmp_path / "set")


# Download


class Site(ThreadingHTTPServer):
    """Serves `content` at every path, well or badly."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/files/set.tgz?download=1"
        self.content = b""
        self.status = 200
        self.ranges = True
        self.shifted = 0  # bytes that an answer to a Range starts too early
        self.drop_after: int | None = None  # bytes
        self.stalls = False  # instead of dropping
        self.chunked = False
        self.announces = True
        self.asked: list[str | None] = []  # the Range of each request
        self.over = threading.Event()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        site = self.server
        asked = self.headers["Range"]
        site.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
        whole = len(site.content)
        self.close_connection = True
        if site.status not in (200, 206):
            return self.send_error(site.status)
        if start >= whole > 0:
            return self.send_error(416)
        start -= site.shifted if start else 0
        body = site.content[start:]
        self.send_response(206 if asked and site.ranges else site.status)
        if asked and site.ranges:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif site.announces:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: site.drop_after]
        if site.chunked:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent))
            if len(sent) == len(body):
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)
        if site.stalls and len(sent) < len(body):
            self.wfile.flush()
            site.over.wait()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    archive = write_files(tmp_path / "served.tgz", FILES | {"set/noise": NOISE})
    with Site() as server:
        server.content = archive.read_bytes()
        archive.unlink()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "set"


WHOLE = EXTRACTED | {"noise": NOISE}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_download(
    site: Site, root: Path, capsys: pytest.CaptureFixture[str], sized: bool, chunked: bool
) -> None:
    site.chunked = chunked
    obtain(site.url, md5(site.content).upper(), len(site.content) if sized else None, root)
    assert files(root) == WHOLE
    assert [p.name for p in root.parent.iterdir()] == ["set"]
    assert site.asked == [None]
    err = capsys.readouterr().err
    assert "downloading set.tgz (MiB): 1 in " in err
    assert "extracting set.tgz.part: 5 in " in err


def test_a_dropped_connection_resumes(site: Site, root: Path) -> None:
    site.drop_after = 20_000
    whole = len(site.content)
    part = root.with_name("set.tgz.part")
    for came in (20_000, 40_000):
        with pytest.raises(
            DataError,
            match=rf"^{site.url.replace('?', '.')}: {came} of {whole} bytes came \(the connection closed\): "
            "run the command again to resume the download$",
        ):
            obtain(site.url, md5(site.content), whole, root)
        assert tree(root.parent) == {part.name: site.content[:came]}
    obtain(site.url, md5(site.content), whole, root)
    assert files(root) == WHOLE
    assert not part.exists()
    assert site.asked == [None, "bytes=20000-", "bytes=40000-"]


def test_a_server_that_stalls(site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "MIB", 4096)
    site.drop_after, site.stalls = 10_000, True
    with pytest.raises(DataError, match=r"8192 of \d+ bytes came \(timed out\): run the command again"):
        obtain(site.url, md5(site.content), None, root)
    assert tree(root.parent) == {"set.tgz.part": site.content[:8192]}


def test_a_drop_where_the_length_is_unknown(site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MIB", 4096)
    site.drop_after, site.chunked = 10_000, True
    with pytest.raises(DataError, match=r"8192 of an unknown number of bytes came \(IncompleteRead"):
        obtain(site.url, md5(site.content), None, root)
    site.drop_after = None
    obtain(site.url, md5(site.content), None, root)
    assert files(root) == WHOLE
    assert site.asked == [None, "bytes=8192-"]


def test_fewer_bytes_than_the_size(site: Site, root: Path) -> None:
    site.announces, site.drop_after = False, 30_000
    whole = len(site.content)
    with pytest.raises(DataError, match=rf"30000 of {whole} bytes came .*: run the command again to resume"):
        obtain(site.url, md5(site.content), whole, root)
    assert tree(root.parent) == {"set.tgz.part": site.content[:30_000]}


def test_more_bytes_than_the_size(site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MIB", 1000)
    site.announces = False
    with pytest.raises(DataError, match=r"came with the MD5 "):
        obtain(site.url, md5(site.content), 1500, root)
    assert list(root.parent.iterdir()) == []


def test_another_size_than_the_archive_s(site: Site, root: Path) -> None:
    whole = len(site.content)
    with pytest.raises(
        DataError,
        match=rf"offers {whole} bytes, not the archive's 7: download it to \S+/raw/set\.tgz by hand, "
        rf"or put the data at {root}$",
    ):
        obtain(site.url, md5(site.content), 7, root)
    assert not root.parent.exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_checksum_removes_the_part(site: Site, root: Path, ranges: bool) -> None:
    site.ranges = ranges
    with pytest.raises(
        DataError, match=rf"MD5 {md5(site.content)}, not {'0' * 32}; set\.tgz\.part is removed: run the"
    ):
        obtain(site.url, "0" * 32, len(site.content), root)
    assert list(root.parent.iterdir()) == []


def write_part(root: Path, content: bytes) -> Path:
    root.parent.mkdir()
    part = root.with_name("set.tgz.part")
    part.write_bytes(content)
    return part


def test_a_part_of_another_file_is_noticed(site: Site, root: Path) -> None:
    write_part(root, b"?" * 100)
    with pytest.raises(DataError, match="is removed: run the command again"):
        obtain(site.url, md5(site.content), None, root)
    obtain(site.url, md5(site.content), None, root)
    assert files(root) == WHOLE
    assert site.asked == ["bytes=100-", None]


def test_a_server_that_ignores_ranges_starts_over(site: Site, root: Path) -> None:
    site.ranges = False
    write_part(root, b"?" * 100)
    obtain(site.url, md5(site.content), len(site.content), root)
    assert files(root) == WHOLE
    assert site.asked == ["bytes=100-"]


def test_a_server_that_answers_another_range(site: Site, root: Path) -> None:
    site.shifted = 10
    write_part(root, site.content[:100])
    obtain(site.url, md5(site.content), len(site.content), root)
    assert files(root) == WHOLE
    assert site.asked == ["bytes=100-", None]


def test_a_range_that_nobody_asked_for(site: Site, root: Path) -> None:
    site.status = 206
    obtain(site.url, md5(site.content), None, root)
    assert files(root) == WHOLE
    assert site.asked == [None]


def test_a_part_that_is_too_long_starts_over(site: Site, root: Path) -> None:
    write_part(root, site.content + b"?")
    obtain(site.url, md5(site.content), len(site.content), root)
    assert files(root) == WHOLE
    assert site.asked == [f"bytes={len(site.content) + 1}-", None]


def test_a_complete_part_needs_no_network(site: Site, root: Path) -> None:
    part = write_part(root, site.content)
    obtain(site.url, md5(site.content), len(site.content), root)
    assert files(root) == WHOLE
    assert not part.exists()
    assert site.asked == []


def test_an_archive_put_there_by_hand_is_used_and_stays(site: Site, root: Path) -> None:
    root.parent.mkdir()
    archive = root.with_name("set.tgz")
    archive.write_bytes(site.content)
    with (
        nothing_changes(root.parent),
        pytest.raises(
            DataError, match=rf"^{archive} has the MD5 {md5(site.content)}, not {'0' * 32}: remove it"
        ),
    ):
        obtain(site.url, "0" * 32, None, root)
    obtain(site.url, md5(site.content), None, root)
    assert files(root) == WHOLE
    assert archive.exists()
    assert site.asked == []


def test_an_archive_that_cannot_be_extracted_is_kept(site: Site, root: Path) -> None:
    site.content = b"<html>no archive</html>"
    with pytest.raises(DataError, match=r"is damaged or no archive \(neither tar nor zip\): remove it"):
        obtain(site.url, md5(site.content), None, root)
    assert tree(root.parent) == {"set.tgz.part": site.content}


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_refuses(site: Site, root: Path, status: int) -> None:
    site.status = status
    part = write_part(root, site.content[:100])
    with pytest.raises(
        DataError,
        match=rf"^http\S+set\.tgz\S+ cannot be downloaded \(HTTP Error {status}: .+\): download it to",
    ):
        obtain(site.url, md5(site.content), None, root)
    assert part.read_bytes() == site.content[:100]
    assert not root.exists()


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{port}/set.tgz", "refused"),
        ("ftp://127.0.0.1:{port}/set.tgz", "refused"),
        ("http://nowhere.invalid/set.tgz", "unknown"),
    ],
)
def test_no_network(root: Path, monkeypatch: pytest.MonkeyPatch, url: str, reason: str) -> None:
    def no_name(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service unknown")

    monkeypatch.setenv("no_proxy", "*")
    if reason == "unknown":
        monkeypatch.setattr(socket, "getaddrinfo", no_name)
    url = url.format(port=closed_port())
    message = rf"^{url} cannot be downloaded \(.*{reason}.*\): .*or put the data at {root}$"
    with pytest.raises(DataError, match=message):
        obtain(url, "0" * 32, None, root)
    assert not root.parent.exists()


def test_a_disk_that_cannot_be_written(site: Site, root: Path) -> None:
    root.parent.mkdir()
    root.with_name("set.tgz.part").mkdir()
    with pytest.raises(DataError, match=r"set\.tgz\.part: Is a directory: mend the path"):
        obtain(site.url, md5(site.content), None, root)


class FTP(socketserver.StreamRequestHandler):
    """Just enough of RFC 959 for one anonymous RETR in passive mode."""

    content: bytes

    def handle(self) -> None:
        replies = {"USER": "230 welcome", "TYPE": "200 binary", "CWD": "250 there", "QUIT": "221 bye"}
        with socket.create_server(("127.0.0.1", 0)) as data:
            port = data.getsockname()[1]
            self.reply("220 ready")
            for line in self.rfile:
                command = line.split()[0].decode()
                if command == "PASV":
                    self.reply(f"227 passive (127,0,0,1,{port // 256},{port % 256})")
                elif command == "RETR":
                    self.reply(f"150 here ({len(self.content)} bytes)")
                    connection, _ = data.accept()
                    with connection:
                        connection.sendall(self.content)
                    self.reply("226 done")
                else:
                    self.reply(replies.get(command, "502 no"))

    def reply(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


def test_ftp_starts_over(site: Site, root: Path) -> None:
    write_part(root, b"?" * 100)
    handler = type("Handler", (FTP,), {"content": site.content})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        url = f"ftp://127.0.0.1:{server.server_address[1]}/pub/set.tgz"
        try:
            obtain(url, md5(site.content), len(site.content), root)
        finally:
            server.shutdown()
            thread.join()
    assert files(root) == WHOLE
    assert [p.name for p in root.parent.iterdir()] == ["set"]
