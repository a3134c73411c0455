"""What an unfinished task leaves for the next process that takes it up: tensors, outside of DVC's outputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mdprop.errors import ParameterError, one_line
from mdprop.files import sealed_file, whole_file, write_files
from mdprop.runtime.aside import name_result, put_away, take_back
from mdprop.runtime.locks import locked
from mdprop.seals import BLANK, BrokenSeal, sealed_as, verify

if TYPE_CHECKING:
    from torch import Tensor

STATES = Path(".mdprop") / "state"

_COPIES = (".dvc", "tmp", "exps")  # where DVC copies a project to, for an experiment of its own
_IDENTITY = "identity.json"
_LOCK, _WAITING, _DONE = "lock", "waiting", "done"
_INFO = "info"
_SUFFIX = ".safetensors"


class Piece(NamedTuple):
    """What was saved: tensors, and what JSON can hold."""

    path: Path
    tensors: dict[str, Tensor]
    info: dict[str, Any]


class State:
    """The pieces of one task in a folder of its own, `.mdprop/state/<name>-<key>`.

    name: of the task, for people. identity: all that determines its result, as JSON can hold it; the
        key is its digest, so that a task with another identity never finds these pieces.

    A piece is a sealed file that appears when it is whole. Only the process that has the folder
    (`acquire`) may read and write pieces. `DiskError` where the file system refuses.
    """

    def __init__(self, name: str, identity: Mapping[str, Any]) -> None:
        self.name = name
        self.identity = json.loads(json.dumps(identity, sort_keys=True))
        key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        self.folder = states_folder() / f"{name}-{key[:32]}"
        self._lock: int | None = None
        self._waiting: int | None = None

    # --- one process at a time ---

    def acquire(self) -> bool:
        """Try to have the folder for this process; False where another one has it, and knows that we wait.

        The lock goes when the process ends, however it ends; processes that it starts do not hold it.
        """
        try:
            take_back(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = locked(self.folder / _LOCK)
            if lock is None:
                if self._waiting is None:
                    self._waiting = locked(self.folder / _WAITING, shared=True)
                return False
            self._lock = lock
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self.release)
            self._leave_queue()
            (self.folder / _DONE).unlink(missing_ok=True)
            if not (self.folder / _IDENTITY).exists():
                write_files({self.folder / _IDENTITY: json.dumps(self.identity, indent=2) + "\n"})
        except FileNotFoundError:  # the one that had it has removed it
            return False
        return True

    def release(self) -> None:
        """Let another process have the folder, with what is in it."""
        self._leave_queue()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def empty(self) -> bool:
        """Whether nothing is kept in it."""
        return not self.paths() and not (self.folder / "files").exists()

    def finish(self) -> None:
        """The task is done: remove the folder, unless another process waits for it and can use it."""
        _remove(self.folder)
        self.release()

    def name_result(self, file: Path) -> None:
        """Name a file by which dvc.lock shows that dvc knows of the result: see `mdprop.runtime.aside`."""
        name_result(self.folder, file)

    def leave_to(self, process: int) -> None:
        """The task is done, and another process will say `remove_left_to` once all others have ended well.

        Where a disk takes no note of it, the folder stays.
        """
        with contextlib.suppress(OSError):
            (self.folder / _DONE).write_text(str(process))

    def _leave_queue(self) -> None:
        if self._waiting is not None:
            os.close(self._waiting)
            self._waiting = None

    def others(self) -> Iterator[tuple[Path, list[str]]]:
        """Folders of the same name that another identity left, and in what it differs."""
        for folder in sorted(self.folder.parent.glob(f"{self.name}-*")):
            if folder == self.folder or not re.fullmatch(r"[0-9a-f]{32}", folder.name[len(self.name) + 1 :]):
                continue
            lock = locked(folder / _LOCK) if (folder / _LOCK).exists() else None
            if lock is None:
                continue
            os.close(lock)
            try:
                theirs = json.loads((folder / _IDENTITY).read_bytes())
                yield folder, [key for key, value in self.identity.items() if theirs.get(key) != value]
            except (OSError, ValueError, AttributeError):
                continue

    # --- pieces ---

    def save(self, name: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> Path:
        """Write a piece; tensors may lie on any device and in any layout."""
        import torch
        from safetensors.torch import save

        path = self.folder / f"{name}{_SUFFIX}"
        content = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        content[_INFO] = torch.frombuffer(bytearray(json.dumps(info).encode()), dtype=torch.uint8)
        with sealed_file(path) as partial:
            partial.write_bytes(save(content, {"seal": BLANK, "key": self.folder.name}))
        _sync(self.folder)
        return path

    def paths(self, start: str = "") -> list[Path]:
        """The files of the pieces whose names are `start`, a dash and more, or of all; in their order."""
        return sorted(self.folder.glob(f"{start and start + '-'}*{_SUFFIX}"))

    def load(self, path: Path) -> Piece | None:
        """What is in one of `paths`; None, and a line that says why, for one that is damaged or foreign."""
        from safetensors import SafetensorError, safe_open

        try:
            verify(path)
            with safe_open(path, "pt") as file:
                key = (file.metadata() or {}).get("key")
                if key != self.folder.name:
                    say(f"{path} belongs to another task, {key}: it is not used")
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Piece(path, tensors, json.loads(bytes(tensors.pop(_INFO).numpy())))
        except BrokenSeal as error:
            say(f"{path} {error}: it is not used")
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            say(f"{path} cannot be read ({one_line(error)}): it is not used")
        return None

    # --- whole files ---

    def keep(self, files: Sequence[Path]) -> None:
        """Keep files that are whole and sealed by a second name, should the first be removed before the end.

        Where a disk knows no second names, nothing is kept.
        """
        with contextlib.suppress(OSError):
            for file in files:
                second = self._second(file)
                second.parent.mkdir(parents=True, exist_ok=True)
                second.unlink(missing_ok=True)
                os.link(file, second)

    def put_back(self, files: Sequence[Path]) -> bool:
        """Give files that were kept their names again; False where one was not kept, or is damaged."""
        for file in files:
            second = self._second(file)
            if not second.exists():
                return False
            try:
                verify(second)
            except (OSError, BrokenSeal) as error:
                say(f"{second} {error}: it is made again")
                return False
        for file in files:
            if not file.exists() or not file.samefile(self._second(file)):
                with whole_file(file) as partial:
                    partial.unlink()
                    os.link(self._second(file), partial)
        return True

    def _second(self, file: Path) -> Path:
        return self.folder / "files" / hashlib.sha256(os.fsencode(file)).hexdigest()[:32]


def remove_left_to(process: int) -> None:
    """Remove the folders of tasks that are done and left to this process, but for those in use again."""
    for note in states_folder().glob(f"*/{_DONE}"):
        with contextlib.suppress(OSError):
            lock = locked(note.with_name(_LOCK)) if note.read_text() == str(process) else None
            if lock is not None:
                _remove(note.parent)
                os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a task's folder, unless a process waits for it; who calls has its lock."""
    with contextlib.suppress(OSError):  # other tasks have theirs there, or nothing can be removed any more
        last = locked(folder / _WAITING)
        if last is not None:
            put_away(folder)
            os.close(last)
            for above in (folder.parent, folder.parent.parent):
                above.rmdir()


def say(text: str, kind: str = "note") -> None:
    """A line for people, on standard error."""
    print(f"{kind}: {text}", file=sys.stderr, flush=True)


def states_folder() -> Path:
    """`.mdprop/state` of the project; of a copy that DVC made of it for an experiment, that of the project.

    DVC makes a new copy each time, so that what is kept in one is lost with it.
    """
    here = Path.cwd()
    for folder in here.parents:
        if folder.parts[-3:] == _COPIES:
            return folder.parents[2] / STATES
    return STATES


def steps_between() -> int:
    """`$MDPROP_STATE_EVERY`: training steps between two states within an epoch; else 0, none."""
    value = os.environ.get("MDPROP_STATE_EVERY") or "0"
    if not value.isdecimal():
        raise ParameterError(
            f"MDPROP_STATE_EVERY={value}: a number of steps from 0 is needed; 0: every epoch"
        )
    return int(value)


def _code() -> str:
    """A digest of the modules of this project that are loaded now."""
    digest = hashlib.sha256()
    files: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None) if name == "__main__" else None
        known = spec.name if spec else name  # a stage runs as __main__
        if known.split(".")[0] in ("mdprop", "stages") and getattr(module, "__file__", None):
            files[known] = module.__file__ or ""
    for name in sorted(files):
        digest.update(f"{name} {file_digest(Path(files[name]))}\n".encode())
    return digest.hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def computed_from(*files: Path, libraries: Sequence[str] = ()) -> dict[str, object]:
    """What determines a result beside parameters: the content of sealed files, code and libraries.

    libraries: further distributions that compute. A file without a seal has no digest here; whoever
    reads it will say what is wrong with it.
    """

    def named(file: Path) -> str | None:
        with contextlib.suppress(OSError, BrokenSeal):
            return sealed_as(file)
        return None

    return {
        "files": {str(file): named(file) for file in files},
        "code": _code(),
        "versions": {name: _version(name) for name in (*_COMPUTING, *libraries)},
    }


_COMPUTING = ("torch", "torchvision", "numpy", "pillow", "pyarrow", "pytorch-metric-learning", "scipy")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
