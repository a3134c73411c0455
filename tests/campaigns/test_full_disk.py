"""Disks that take no more, in every command: one line, nothing half-written, and then the same bytes.

`MDPROP_TRIALS` trials a command and kind of trouble (one by default), drawn by `MDPROP_SEED`. Real full
disks need the right to mount one; a limit on the size of files does elsewhere.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.campaigns.forks import Done, Forks, forks
from tests.helpers import PROJECT
from tests.pipeline.conftest import set_params
from tests.pipeline.test_stages import make_folder

TRIALS = int(os.environ.get("MDPROP_TRIALS", "1"))
SEED = int(os.environ.get("MDPROP_SEED", "0"))

RUN = ("--method", "standard", "--seed", "0")
COMMANDS = {
    "prepare": ("prepare",),
    **{stage: (stage, *RUN) for stage in ("train", "attack", "embed", "evaluate")},
    "report": ("report",),
    "check": ("mdprop", "check", "--baseline", "baselines/b.json", "--update"),
    "export": ("mdprop", "export", "runs/standard/0", "exported/net.safetensors"),
    "export_pth": ("mdprop", "export", "runs/standard/0", "exported/net.pth"),
    "preset": ("mdprop", "preset", "reduced"),
}
SMALL = {
    "dataset.name": "folder",
    "datasets.folder.root": "images",
    "datasets.folder.resize": 16,
    "datasets.folder.image_size": 16,
    "train.epochs": 2,
    "train.validate_every": 2,
    "train.batch_size": 6,
    "methods.clean": ["standard"],
    "methods.single_target": [],
    "methods.multi_target": [],
    "adversary.queries": 10,
    "adversary.steps": 1,
    "adversary.sets": {"one": {"goal": "single_target"}, "two": {"goal": "untargeted"}},
}

Files = dict[str, bytes]


class World(NamedTuple):
    """A small project: what is there before and after each command."""

    forks: Forks
    folder: Path
    before: dict[str, Files]
    after: dict[str, Files]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    shutil.copy(PROJECT / "params.yaml", folder)
    set_params(folder / "params.yaml", SMALL)
    make_folder(folder / "images", sizes=(6,) * 8)
    before, after = {}, {}
    with forks() as server:
        for name, command in COMMANDS.items():
            before[name] = files(folder)
            done = server.run(folder, *command)
            assert done.code == 0, done
            after[name] = files(folder)
        yield World(server, folder, before, after)


def files(folder: Path) -> Files:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and ".mdprop" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def lay_out(folder: Path, content: Files) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def written(world: World, name: str) -> Files:
    before = world.before[name]
    return {file: data for file, data in world.after[name].items() if before.get(file) != data}


def assert_held(world: World, name: str, folder: Path, done: Done) -> None:
    """One line that names a file, and each file as it was, or whole; curves grow as they are written."""
    assert done.code == 2 and len(done.lines) == 1, done
    assert done.lines[0].startswith("error: ") and "cannot be written (" in done.lines[0]
    kept = (world.before[name], world.after[name])
    for file, data in files(folder).items():
        if not file.startswith("live/"):
            assert any(content.get(file) == data for content in kept), f"{file} is left over: {done.lines}"


def assert_goes_on(world: World, name: str, folder: Path) -> None:
    done = world.forks.run(folder, *COMMANDS[name])
    assert done.code == 0, done
    assert files(folder) == world.after[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_files_that_must_not_grow(
    world: World, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(f"{SEED} {name}")
    sizes = sorted({len(data) for data in written(world, name).values()})
    limits = [0, *(draw.randrange(draw.choice(sizes)) for _ in range(TRIALS))]
    lay_out(tmp_path, world.before[name])
    for limit in limits:
        assert_held(world, name, tmp_path, world.forks.run(tmp_path, *COMMANDS[name], largest_file=limit))
    assert_goes_on(world, name, tmp_path)
    with capsys.disabled():
        print(f"\nlimits of {name}, seed {SEED}: {len(limits)} tried, {len(limits)} held", end="")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(world: World, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(f"{SEED} {name}")
    need = sum(len(data) for data in written(world, name).values())
    tried = full = 0
    with disk(tmp_path) as folder:
        lay_out(folder, world.before[name])
        for share in [0, *(draw.random() for _ in range(TRIALS))]:
            with filled(folder, round(share * need)):
                done = world.forks.run(folder, *COMMANDS[name])
            tried += 1
            if done.code or share == 0:
                full += 1
                assert_held(world, name, folder, done)
        assert_goes_on(world, name, folder)
    with capsys.disabled():
        print(f"\nfull disks of {name}, seed {SEED}: {tried} tried, {full} full, all held", end="")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_is_read_only(world: World, tmp_path: Path, name: str) -> None:
    with disk(tmp_path) as folder:
        lay_out(folder, world.before[name])
        before = files(folder)
        mount("-o", "remount,ro", str(folder))
        done = world.forks.run(folder, *COMMANDS[name])
        assert done.code == 2 and len(done.lines) == 1, done
        assert "cannot be written (Read-only file system)" in done.lines[0]
        assert files(folder) == before


@contextmanager
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB of its own; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


@contextmanager
def filled(folder: Path, left: int) -> Iterator[None]:
    """Leave so many bytes on a disk, as full pages."""
    filler = folder / ".filler"
    space = os.statvfs(folder)
    pages = space.f_bavail - left // space.f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, pages) * space.f_frsize)
    try:
        yield
    finally:
        filler.unlink()


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
