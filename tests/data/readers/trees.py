"""Published layouts, made from rules: every image is a link to one tiny JPEG."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

LINKS = 10_000  # to one file; some file systems allow few more than 60,000


def spread(images: int, classes: int) -> list[int]:
    """Sizes of classes that add up to `images`, the larger ones first."""
    return [images // classes + (index < images % classes) for index in range(classes)]


def place(root: Path, paths: Iterable[str]) -> None:
    """An image at each path below `root`."""
    encoded = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(encoded, "JPEG")
    source, folders = "", set()
    for number, path in enumerate(paths):
        folder = f"{root}/{path.rpartition('/')[0]}"
        if folder not in folders:
            folders.add(folder)
            os.makedirs(folder, exist_ok=True)
        if number % LINKS:
            os.link(source, f"{root}/{path}")
        else:
            source = f"{root}/{path}"
            Path(source).write_bytes(encoded.getvalue())


def cub200(root: Path, sizes: list[int]) -> None:
    """images/001.Kind_1/Kind_1_0001_10.jpg, ... and images.txt."""
    paths = [
        f"{number:03}.Kind_{number}/Kind_{number}_{index:04}_{10 * index}.jpg"
        for number, size in enumerate(sizes, 1)
        for index in range(1, size + 1)
    ]
    place(root / "images", paths)
    lines = [f"{identity} {path}\n" for identity, path in enumerate(paths, 1)]
    (root / "images.txt").write_text("".join(lines))


def cars_annotated(root: Path, sizes: list[int], names: bool = True) -> None:
    """car_ims/000001.jpg, ... and cars_annos.mat; the classes take turns."""
    numbers = [n for turn in range(max(sizes)) for n, size in enumerate(sizes, 1) if turn < size]
    paths = [f"car_ims/{index:06}.jpg" for index in range(1, len(numbers) + 1)]
    place(root, paths)
    annotations = np.zeros(
        (1, len(numbers)), [(name, object) for name in ("relative_im_path", "class", "test")]
    )
    for row, path, number in zip(annotations[0], paths, numbers, strict=True):
        row["relative_im_path"], row["class"], row["test"] = path, np.uint8(number), np.uint8(number % 2)
    content = {"annotations": annotations}
    if names:
        # Names whose order is not that of the numbers.
        content["class_names"] = np.array([[car(n, len(sizes)) for n in range(1, len(sizes) + 1)]], object)
    savemat(str(root / "cars_annos.mat"), content)


def cars_in_halves(
    root: Path, sizes: list[int], *, nested: bool = False, devkit: str = "devkit", names: bool = True
) -> None:
    """cars_train/00001.jpg, ..., cars_test/00001.jpg, ... and devkit/: each half with half of each class."""
    (root / devkit).mkdir(parents=True, exist_ok=True)
    for half, file in (("cars_train", "cars_train_annos"), ("cars_test", "cars_test_annos_withlabels")):
        share = [size // 2 if half == "cars_train" else size - size // 2 for size in sizes]
        numbers = [n for turn in range(max(share)) for n, size in enumerate(share, 1) if turn < size]
        place(root / half / (half if nested else ""), (f"{i:05}.jpg" for i in range(1, len(numbers) + 1)))
        annotations = np.zeros((1, len(numbers)), [("class", object), ("fname", object)])
        for index, (row, number) in enumerate(zip(annotations[0], numbers, strict=True), 1):
            row["class"], row["fname"] = np.uint8(number), f"{index:05}.jpg"
        savemat(str(root / devkit / f"{file}.mat"), {"annotations": annotations})
        if half == "cars_test":
            bare = np.zeros((1, len(numbers)), [("fname", object)])
            bare["fname"] = annotations["fname"]
            savemat(str(root / devkit / "cars_test_annos.mat"), {"annotations": bare})
    if names:
        listed = np.array([[car(n, len(sizes)) for n in range(1, len(sizes) + 1)]], object)
        savemat(str(root / devkit / "cars_meta.mat"), {"class_names": listed})


def car(number: int, classes: int) -> str:
    return f"Maker {classes - number:03} C/V 2012"


def cars_in_folders(root: Path, sizes: list[int]) -> None:
    """train/<class>/00001.jpg, ... and test/<class>/00001.jpg, ...: each with half of each class."""
    for part, halves in {
        "train": [size // 2 for size in sizes],
        "test": [size - size // 2 for size in sizes],
    }.items():
        folders = [f"Car {number:03}" for number, size in enumerate(halves, 1) for _ in range(size)]
        place(root / part, (f"{folder}/{index:05}.jpg" for index, folder in enumerate(folders, 1)))


def sop(root: Path, train: list[int], test: list[int]) -> None:
    """bicycle_final/100001_0.JPG, ..., Ebay_train.txt and Ebay_test.txt."""
    image = number = 0
    for name, sizes in {"train": train, "test": test}.items():
        lines = ["image_id class_id super_class_id path\n"]
        paths = []
        for size in sizes:
            number += 1
            kind = number % 2
            for index in range(size):
                image += 1
                paths.append(f"{('bicycle_final', 'chair_final')[kind]}/{100000 + number}_{index}.JPG")
                lines.append(f"{image} {number} {kind + 1} {paths[-1]}\n")
        place(root, paths)
        (root / f"Ebay_{name}.txt").write_text("".join(lines))


def inshop(
    root: Path,
    train: list[int],
    query: list[int],
    gallery: list[int],
    images: str = "Img",
    lists: str = "Eval",
) -> None:
    """img/WOMEN/Dresses/id_00000001/01_1_front.jpg, ... and list_eval_partition.txt."""
    rows = []
    for index, (statuses, sizes) in enumerate(
        ((("train",), [train]), (("query", "gallery"), [query, gallery]))
    ):
        for item in range(len(sizes[0])):
            identity = f"id_{2 * item + index + 1:08}"
            for status, counts in zip(statuses, sizes, strict=True):
                for number in range(counts[item]):
                    path = f"img/WOMEN/Dresses/{identity}/{status[0]}{number:02}_1_front.jpg"
                    rows.append((path, identity, status))
    place(root / images, (path for path, _, _ in rows))
    lines = [f"{path:70} {identity} {status}\n" for path, identity, status in rows]
    (root / lists).mkdir(parents=True, exist_ok=True)
    (root / lists / "list_eval_partition.txt").write_text(
        "".join([f"{len(rows)}\n", "image_name item_id evaluation_status\n", *lines])
    )
