from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor

from mdprop.data.images import encode
from mdprop.data.stores import images
from mdprop.data.stores.images import ImageStore, Row, write_store
from mdprop.errors import DataError
from mdprop.seals import BLANK, seal


def picture(level: int, mode: str = "L", kind: str = "PNG") -> bytes:
    return encode(Image.new(mode, (5, 4), (level,) * len(mode) if len(mode) > 1 else level), kind)


def rows(count: int, mode: str = "L", kind: str = "PNG") -> Iterator[Row]:
    for i in range(count):
        label = 7 - i // 2
        yield Row(picture(i, mode, kind), label, f"class {label}", f"é/{i}.png", 100 + i)


def level(image: Tensor) -> int:
    return int(image.max())


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "PPM"])
def test_what_was_written_is_read(tmp_path: Path, mode: str, kind: str) -> None:
    write_store(tmp_path / "a.arrow", rows(5, mode, kind), mode)
    store = ImageStore(tmp_path / "a.arrow")
    assert (len(store), store.mode) == (5, mode)
    assert store.labels.tolist() == [7, 7, 6, 6, 5]
    assert store.ids.tolist() == [100, 101, 102, 103, 104]
    assert store.labels.dtype == store.ids.dtype == np.int64
    assert store.class_names == {5: "class 5", 6: "class 6", 7: "class 7"}
    for index in (0, np.int64(3), 4):
        assert store.path(index) == f"é/{index}.png"
        assert store.image(index).shape == (len(mode), 4, 5)
        assert store.image(index).dtype == torch.uint8
        assert (store.image(index) == int(index)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.arrow"]


def test_changing_an_image_leaves_the_store_as_it_is(tmp_path: Path) -> None:
    write_store(tmp_path / "a.arrow", rows(2, kind="PPM"), "L")
    store = ImageStore(tmp_path / "a.arrow")
    store.image(1).zero_()
    assert level(store.image(1)) == 1


def test_an_index_beyond_the_end(tmp_path: Path) -> None:
    write_store(tmp_path / "a.arrow", rows(2), "L")
    with pytest.raises(IndexError, match="index"):
        ImageStore(tmp_path / "a.arrow").image(2)


def test_an_empty_store(tmp_path: Path) -> None:
    write_store(tmp_path / "a.arrow", [], "RGB")
    store = ImageStore(tmp_path / "a.arrow")
    assert (len(store), store.labels.tolist(), store.ids.tolist(), store.class_names) == (0, [], [], {})
    assert (store.mode, store.labels.dtype) == ("RGB", np.int64)


@pytest.mark.parametrize(("limit", "value"), [("BATCH_BYTES", 200), ("BATCH_ROWS", 3)])
def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(images, limit, value)
    write_store(tmp_path / "a.arrow", rows(10), "L")
    with pa.memory_map(str(tmp_path / "a.arrow")) as source:
        reader = pa.ipc.open_file(source)
        sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
    assert sizes == [3, 3, 3, 1]
    store = ImageStore(tmp_path / "a.arrow")
    assert [level(store.image(i)) for i in range(10)] == list(range(10))


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BATCH_ROWS", 10)
    held = pa.total_allocated_bytes()
    most = 0

    def large() -> Iterator[Row]:
        nonlocal most
        for i in range(200):
            most = max(most, pa.total_allocated_bytes() - held)
            yield Row(bytes(100_000), 0, "a", "a", i)

    write_store(tmp_path / "a.arrow", large(), "L")
    assert (tmp_path / "a.arrow").stat().st_size > 200 * 100_000
    assert most < 5_000_000


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_store(tmp_path / name, rows(9), "L")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failure_keeps_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Iterator[Row]:
        yield from rows(3)
        raise DataError("image 4 is corrupt")

    path = tmp_path / "a.arrow"
    with pytest.raises(DataError, match="image 4 is corrupt"):
        write_store(path, broken(), "L")
    assert list(tmp_path.iterdir()) == []
    write_store(path, rows(2), "L")
    with pytest.raises(DataError, match="image 4 is corrupt"):
        write_store(path, broken(), "L")
    assert len(ImageStore(path)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_pickles_as_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_store(path, (Row(bytes(50_000), 0, "a", "a", i) for i in range(3)), "L")
    assert len(pickle.dumps(ImageStore(path))) < 500
    write_store(path, rows(5), "L")
    assert level(pickle.loads(pickle.dumps(ImageStore(path))).image(3)) == 3


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_processes_read_the_same_images(tmp_path: Path, start: str) -> None:
    write_store(tmp_path / "a.arrow", rows(20), "L")
    store = ImageStore(tmp_path / "a.arrow")
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert [level(image) for image in pool.map(store.image, range(20))] == list(range(20))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_an_open_store_survives_a_fork(tmp_path: Path) -> None:
    write_store(tmp_path / "a.arrow", rows(20), "L")
    store = ImageStore(tmp_path / "a.arrow")
    store.image(0)

    def read() -> None:
        assert [level(store.image(i)) for i in range(20)] == list(range(20))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read) for _ in range(2)]
    for process in processes:
        process.start()
    read()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}/a.arrow does not exist: run dvc repro prepare$"):
        ImageStore(tmp_path / "a.arrow")


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.arrow"
    write_store(path, rows(9), "L")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=rf"^{path} is damaged.*: run dvc repro prepare$"):
        ImageStore(path)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path} is no Arrow file: run dvc repro prepare$"):
        ImageStore(tmp_path)


@pytest.mark.parametrize("schema", [images.SCHEMA, pa.schema({"x": pa.int64()}, {"mode": "L"})])
def test_another_arrow_file_is_no_store(tmp_path: Path, schema: pa.Schema) -> None:
    path = tmp_path / "a.arrow"
    metadata = {**(schema.metadata or {}), b"seal": BLANK.encode()}
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema.with_metadata(metadata)):
        pass
    seal(path)
    with pytest.raises(
        DataError, match=rf"^{path} is no image store of this version: run dvc repro prepare$"
    ):
        ImageStore(path)


@pytest.mark.parametrize(
    "damaged", [picture(9)[:40], picture(9, kind="PPM")[:-1], picture(9, "RGB", "PPM"), b""]
)
def test_a_damaged_image(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.arrow"
    write_store(path, [*rows(2), Row(damaged, 0, "a", "a/9.png", 9)], "L")
    store = ImageStore(path)
    assert level(store.image(1)) == 1
    with pytest.raises(DataError, match=rf"^{path} is damaged \(row 2, a/9.png\): run dvc repro prepare$"):
        store.image(2)
