"""Kill stages and dvc at random moments, run the same command again, and compare the bytes of all results.

    python -m tests.campaigns.kills --trials 100 --seed 0

A trial removes what a stage makes, as DVC does, starts it (or `dvc repro`), sends a signal to it or to its
whole group after a random share of the time it takes, and runs it again. It holds where the second run ends
well, every file of the project is as it was before, none more and none less, no process and no temporary file
is left, a stage that was asked to end (TERM, Ctrl-C) says so in one line, and a training repeats no more than
the epoch it was in, whoever of dvc, the stage and its processes was killed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pipeline.conftest import copy_project

SMALL: dict[str, Any] = {
    "datasets.glyphs.images_per_class": 4,
    "train.epochs": 4,
    "train.validate_every": 2,
    "adversary.queries": 64,
    "adversary.steps": 2,
    "methods": {"clean": [], "single_target": [], "multi_target": ["mdprop"]},
}
RUN = "--method mdprop --seed 0"
STAGES = {
    "prepare": ("python -m stages.prepare", ["data/prepared/glyphs"]),
    "train": (
        f"python -m stages.train {RUN}",
        ["runs/mdprop/0/model.safetensors", "runs/mdprop/0/model.json", "live/mdprop/0"],
    ),
    "attack": (f"python -m stages.attack {RUN}", ["runs/mdprop/0/adversarial"]),
    "embed": (f"python -m stages.embed {RUN}", ["runs/mdprop/0/embeddings"]),
    "evaluate": (
        f"python -m stages.evaluate {RUN}",
        [f"runs/mdprop/0/{name}" for name in ("metrics.json", "checks.json", "queries.parquet")],
    ),
    "report": ("python -m stages.report", ["report"]),
}
DVC = "dvc repro"
IN_PROCESSES = ("train", "attack", "embed", "dvc")
PROGRESS = re.compile(r": \d+(/\d+| in )|, run \d+ of \d+$")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EPOCH = re.compile(r"(\w+), epoch (\d+) of \d+: \d+ in")
IGNORED = (".dvc/tmp", ".dvc/cache", "__pycache__", ".git/", "dvc.lock", ".mdprop")
TORCH_CACHE = "torchinductor_"
PATIENCE = 3000


@dataclass
class Trial:
    """What is killed, by which signal, how late, and what came of it."""

    command: str
    signal: signal.Signals
    whole_group: bool
    processes: int
    share: float
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        whom = "group" if self.whole_group else "process"
        killed = f"{self.signal.name} to the {whom} of {self.command} at {self.share:.0%}"
        return killed + (f", {self.processes} processes" if self.processes > 1 else "")


class Campaign:
    """A small project that has run once, and what is in it."""

    def __init__(self, folder: Path) -> None:
        (folder / "project").mkdir()
        self.project = copy_project(folder / "project", SMALL)
        self.path, self.backup = self.project.path, folder / "backup"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.project.repro()
        shutil.copytree(self.path, self.backup, symlinks=True)
        self.seconds: dict[tuple[str, int], float] = {}
        self.expected: dict[tuple[str, int], dict[str, str]] = {}

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file of the project."""
        files = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        named = ((str(path.relative_to(self.path)), path) for path in files)
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in named
            if not any(part in name for part in IGNORED)
        }

    def draw(self, rng: random.Random) -> Trial:
        command = rng.choice([*STAGES, "dvc"])
        processes = rng.choice([1, 2]) if command in IN_PROCESSES else 1
        return Trial(command, rng.choice(SIGNALS), rng.random() < 0.5, processes, rng.uniform(0.05, 1.0))

    def run(self, trial: Trial) -> Trial:
        """Try it; `Trial.faults` says what did not hold."""
        usual = self.usual(trial.command, trial.processes)
        self.clear(trial.command)
        process = self.start(trial.command, trial.processes)
        time.sleep(trial.share * usual)
        killed = process.poll() is None
        if killed:
            send = os.killpg if trial.whole_group else os.kill
            send(process.pid, trial.signal)
        _, said = process.communicate(timeout=PATIENCE)
        self.settle(process.pid)
        if killed and trial.command != "dvc":
            self.check_end(trial, process.returncode, said)
        self.mend()
        again = self.start(trial.command, trial.processes)
        _, said_again = again.communicate(timeout=PATIENCE)
        if again.returncode:
            trial.faults.append(f"the second run ended with {again.returncode}: {said_again[-500:]}")
        self.check_epochs(trial, said, said_again)
        self.check_files(trial)
        self.check_left(trial)
        self.restore()
        return trial

    def start(self, command: str, processes: int) -> subprocess.Popen[str]:
        words = (DVC if command == "dvc" else STAGES[command][0]).split()
        words[0] = sys.executable if words[0] == "python" else str(Path(sys.executable).parent / words[0])
        env = {k: v for k, v in os.environ.items() if k not in ("DVC_STAGE", "PYTHONPATH")}
        env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}", "MDPROP_DEVICE": "cpu"}
        env |= {"MDPROP_PROCESSES": str(processes)} if processes > 1 else {}
        env |= {"TMPDIR": str(self.temporary)}
        return subprocess.Popen(
            words,
            cwd=self.path,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def usual(self, command: str, processes: int) -> float:
        """How long it takes when nobody stops it, and what it leaves: several processes round otherwise."""
        if (command, processes) not in self.seconds:
            self.clear(command)
            start = time.monotonic()
            process = self.start(command, processes)
            process.communicate(timeout=PATIENCE)
            self.seconds[command, processes] = time.monotonic() - start
            self.expected[command, processes] = self.digests()
            self.restore()
        return self.seconds[command, processes]

    def clear(self, command: str) -> None:
        """Remove what the command makes; of dvc, what it makes again is a training and what follows."""
        if command == "dvc":
            (self.path / "dvc.lock").unlink(missing_ok=True)
            shutil.rmtree(self.path / ".dvc" / "cache", ignore_errors=True)
            shutil.rmtree(self.path / ".dvc" / "tmp", ignore_errors=True)
        outputs = (
            [out for name in STAGES for out in STAGES[name][1]] if command == "dvc" else STAGES[command][1]
        )
        for out in outputs:
            path = self.path / out
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def settle(self, group: int) -> None:
        """Wait for what is left of the group; a stage goes on where dvc alone was killed."""
        for _ in range(10 * PATIENCE):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)

    def mend(self) -> None:
        """What docs/guide.md says to do after dvc was killed."""
        lock = self.path / ".dvc" / "tmp" / "rwlock"
        if lock.exists() and not lock.read_text().strip():
            lock.unlink()

    def check_end(self, trial: Trial, code: int, said: str) -> None:
        lines = [line for line in said.splitlines() if not PROGRESS.search(line)]
        if "Traceback" in said:
            trial.faults.append(f"a traceback: {said[-500:]}")
        if code == 0 or trial.signal == signal.SIGKILL:
            return
        expected = (128 + trial.signal, -trial.signal)
        if code not in expected:
            trial.faults.append(f"ended with {code}, not {expected[0]}: {said[-300:]}")
        elif code > 0 and len(lines) != 1:
            trial.faults.append(f"{len(lines)} lines at its end: {lines}")

    def check_epochs(self, trial: Trial, said: str, said_again: str) -> None:
        epochs = int(SMALL["train.epochs"])
        before, after = ([found.groups() for found in EPOCH.finditer(text)] for text in (said, said_again))
        for method in {method for method, _ in before}:
            done = max(int(epoch) for name, epoch in before if name == method)
            again = sum(name == method for name, _ in after)
            if again > epochs - done + 1:
                trial.faults.append(f"{done} epochs of {method} were done, and {again} were trained again")

    def check_files(self, trial: Trial) -> None:
        now, expected = self.digests(), self.expected[trial.command, trial.processes]
        for name in sorted(set(now) | set(expected)):
            if now.get(name) != expected.get(name):
                what = "is left" if name not in expected else "is missing" if name not in now else "differs"
                trial.faults.append(f"{name} {what}")
        if (self.path / ".mdprop").exists():
            trial.faults.append(f"left in .mdprop: {[str(p) for p in (self.path / '.mdprop').rglob('*')]}")

    def check_left(self, trial: Trial) -> None:
        running = [place.parent.name for place in Path("/proc").glob("[0-9]*/cwd") if self.is_here(place)]
        if running:
            trial.faults.append(f"still running: processes {', '.join(running)}")
        left = [path.name for path in self.temporary.iterdir() if not path.name.startswith(TORCH_CACHE)]
        if left:
            trial.faults.append(f"left among temporary files: {left}")

    def is_here(self, place: Path) -> bool:
        try:
            return place.readlink() == self.path
        except OSError:  # gone, or another user's
            return False

    def restore(self) -> None:
        """Everything as it was after the first run, so that trials know nothing of each other."""
        shutil.rmtree(self.path)
        shutil.copytree(self.backup, self.path, symlinks=True)
        shutil.rmtree(self.temporary)
        self.temporary.mkdir()


def campaign(trials: int, seed: int, folder: Path) -> list[Trial]:
    """Run so many trials drawn from `seed`, and print each and how many held."""
    rng, tried = random.Random(seed), Campaign(folder)
    done = []
    for number in range(trials):
        trial = tried.run(tried.draw(rng))
        done.append(trial)
        print(f"{number + 1:4d} {'; '.join(trial.faults) or 'held'}: {trial}", flush=True)
    held = sum(not trial.faults for trial in done)
    print(f"kills, seed {seed}: {len(done)} tried, {held} held")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell starts us with &
    with tempfile.TemporaryDirectory() as folder:
        done = campaign(options.trials, options.seed, Path(folder))
    raise SystemExit(any(trial.faults for trial in done))


if __name__ == "__main__":
    main()
