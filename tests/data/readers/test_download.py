from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mdprop.data.readers import download
from mdprop.data.readers.download import Archive, obtain
from mdprop.errors import DataError
from tests.data.readers.packing import EXTRACTED, FILES, NOISE, files, nothing_changes, pack, tree


class Site(ThreadingHTTPServer):
    """Serves `content` at every path, well or badly."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/files/set.tgz?download=1"
        self.content = b""
        self.status = 200
        self.ranges = True
        self.drop_after: int | None = None  # bytes
        self.stalls = False  # instead of dropping
        self.chunked = False
        self.announces = True
        self.asked: list[str | None] = []  # the Range of each request
        self.over = threading.Event()

    def archive(self, md5: str = "", size: int = 0) -> Archive:
        """What is served, under its checksum and size or under others."""
        return Archive(self.url, md5 or md5_of(self.content), size or len(self.content))


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
    archive = pack(tmp_path / "served.tgz", FILES | {"set/noise": NOISE})
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


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_download(site: Site, root: Path, capsys: pytest.CaptureFixture[str], chunked: bool) -> None:
    site.chunked = chunked
    obtain(site.archive(), root)
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
            match=rf"^{site.url.replace('?', '.')}: the connection closed after {came} of {whole} bytes: "
            "run the command again to resume the download$",
        ):
            obtain(site.archive(), root)
        assert tree(root.parent) == {part.name: site.content[:came]}
    obtain(site.archive(), root)
    assert files(root) == WHOLE
    assert not part.exists()
    assert site.asked == [None, "bytes=20000-", "bytes=40000-"]


def test_a_server_that_stalls(site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "MIB", 4096)
    site.drop_after, site.stalls = 10_000, True
    with pytest.raises(DataError, match=r"closed after 8192 of \d+ bytes: run the command again"):
        obtain(site.archive(), root)
    assert tree(root.parent) == {"set.tgz.part": site.content[:8192]}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_drop_where_no_length_is_announced(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(download, "MIB", 4096)
    site.announces, site.chunked, site.drop_after = False, chunked, 12_288
    with pytest.raises(DataError, match=r"closed after 12288 of \d+ bytes: run the command again"):
        obtain(site.archive(), root)
    site.drop_after = None
    obtain(site.archive(), root)
    assert files(root) == WHOLE
    assert site.asked == [None, "bytes=12288-"]


def test_another_size_than_the_archive_s(site: Site, root: Path) -> None:
    whole = len(site.content)
    with pytest.raises(
        DataError,
        match=rf"offers {whole} bytes, not the archive's 7: download it to \S+/raw/set\.tgz by hand, "
        rf"or put the data at {root}$",
    ):
        obtain(site.archive(size=7), root)
    assert not root.parent.exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_checksum_removes_the_part(site: Site, root: Path, ranges: bool) -> None:
    site.ranges = ranges
    with pytest.raises(
        DataError, match=rf"MD5 {md5_of(site.content)}, not {'0' * 32}; set\.tgz\.part is removed: run the"
    ):
        obtain(site.archive("0" * 32), root)
    assert list(root.parent.iterdir()) == []


def write_part(root: Path, content: bytes) -> Path:
    root.parent.mkdir()
    part = root.with_name("set.tgz.part")
    part.write_bytes(content)
    return part


def test_a_part_of_another_file_is_noticed(site: Site, root: Path) -> None:
    write_part(root, b"?" * 100)
    with pytest.raises(DataError, match="is removed: run the command again"):
        obtain(site.archive(), root)
    obtain(site.archive(), root)
    assert files(root) == WHOLE
    assert site.asked == ["bytes=100-", None]


def test_a_server_that_ignores_ranges_starts_over(site: Site, root: Path) -> None:
    site.ranges = False
    write_part(root, b"?" * 100)
    obtain(site.archive(), root)
    assert files(root) == WHOLE
    assert site.asked == ["bytes=100-"]


def test_a_range_that_nobody_asked_for(site: Site, root: Path) -> None:
    site.status = 206
    obtain(site.archive(), root)
    assert files(root) == WHOLE
    assert site.asked == [None]


def test_a_part_that_is_too_long_starts_over(site: Site, root: Path) -> None:
    write_part(root, site.content + b"?")
    obtain(site.archive(), root)
    assert files(root) == WHOLE
    assert site.asked == [None]


def test_a_complete_part_needs_no_network(site: Site, root: Path) -> None:
    part = write_part(root, site.content)
    obtain(site.archive(), root)
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
            DataError, match=rf"^{archive} has the MD5 {md5_of(site.content)}, not {'0' * 32}: remove it"
        ),
    ):
        obtain(site.archive("0" * 32), root)
    obtain(site.archive(), root)
    assert files(root) == WHOLE
    assert archive.exists()
    assert site.asked == []


def test_an_archive_that_cannot_be_extracted_is_kept(site: Site, root: Path) -> None:
    site.content = b"<html>no archive</html>"
    with pytest.raises(DataError, match=r"is damaged or no archive \(File is not a zip file\): remove it"):
        obtain(site.archive(), root)
    assert tree(root.parent) == {"set.tgz.part": site.content}


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_refuses(site: Site, root: Path, status: int) -> None:
    site.status = status
    part = write_part(root, site.content[:100])
    with pytest.raises(
        DataError,
        match=rf"^http\S+set\.tgz\S+ cannot be downloaded \(HTTP Error {status}: .+\): download it to",
    ):
        obtain(site.archive(), root)
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
        obtain(Archive(url, "0" * 32, 9), root)
    assert not root.parent.exists()


def test_a_disk_that_cannot_be_written(site: Site, root: Path) -> None:
    root.parent.mkdir()
    root.with_name("set.tgz.part").mkdir()
    with pytest.raises(DataError, match=r"set\.tgz\.part: Is a directory: mend the path"):
        obtain(site.archive(), root)


def test_a_root_that_is_not_empty_is_refused(site: Site, root: Path) -> None:
    root.mkdir(parents=True)
    (root / "mine.txt").write_text("mine")
    with (
        nothing_changes(root.parent),
        pytest.raises(DataError, match=f"^{root} exists and is not an empty folder: remove it"),
    ):
        obtain(site.archive(), root)
    assert site.asked == []
