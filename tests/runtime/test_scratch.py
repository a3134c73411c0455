from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mdprop.runtime.scratch import scratch_beside
from tests.helpers import PROJECT

HOLD = """
import sys
from pathlib import Path
from mdprop.runtime.scratch import scratch_beside
with scratch_beside(Path(sys.argv[1])) as scratch:
    (scratch / "new").mkdir()
    (scratch / "new" / "file").write_text("x")
    print(scratch, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def hold(target: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_beside_the_target_and_goes(tmp_path: Path) -> None:
    with scratch_beside(tmp_path / "made" / "set") as scratch:
        assert scratch.parent == tmp_path / "made"
        (scratch / "new").mkdir()
        (scratch / "link").symlink_to(tmp_path)
        (scratch / "new").rename(tmp_path / "made" / "set")
    assert names(tmp_path / "made") == ["set"]
    with pytest.raises(ValueError, match="broken"), scratch_beside(tmp_path / "made" / "set") as scratch:
        (scratch / "file").touch()
        raise ValueError("broken")
    assert names(tmp_path / "made") == ["set"]


def test_what_a_killed_process_left_goes_at_the_next_run(tmp_path: Path) -> None:
    process, left = hold(tmp_path / "set")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (left / "new" / "file").exists()
    with scratch_beside(tmp_path / "other"):
        assert left.exists()
    with scratch_beside(tmp_path / "set"):
        assert not left.exists()
    assert names(tmp_path) == []


def test_the_folder_of_a_running_process_stays(tmp_path: Path) -> None:
    process, held = hold(tmp_path / "set")
    with scratch_beside(tmp_path / "set") as scratch:
        assert scratch != held
        assert (held / "new" / "file").exists()
    process.communicate("")
    assert process.returncode == 0
    assert names(tmp_path) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    for name in (".set.abcdefgh", ".set.short", ".set.ABCDEFGH", "set.abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.png").touch()
    (tmp_path / ".set.ijklmnop").write_text("a file")
    before = names(tmp_path)
    with scratch_beside(tmp_path / "set"):
        pass
    assert names(tmp_path) == before


def test_a_folder_without_its_lock_yet_goes_when_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".set.abcdefgh").mkdir()
    with scratch_beside(tmp_path / "set"):
        assert not (tmp_path / ".set.abcdefgh").exists()


def test_a_folder_taken_for_a_left_one_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mdprop.runtime import scratch

    locked, calls = scratch.locked, []

    def once_too_late(path: Path) -> int | None:
        calls.append(path)
        if len(calls) == 1:
            path.parent.rmdir()  # as another process does
        return locked(path)

    monkeypatch.setattr(scratch, "locked", once_too_late)
    with scratch_beside(tmp_path / "set") as folder:
        assert folder == calls[1].parent != calls[0].parent
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Permission denied"), scratch_beside(tmp_path / "set"):
        pass
    tmp_path.chmod(0o700)
