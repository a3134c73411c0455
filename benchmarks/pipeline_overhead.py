"""What the pipeline itself costs: `dvc repro` with nothing to do, and the start of each stage.

    python -m benchmarks.pipeline_overhead

`dvc repro` runs in a temporary clone of the last commit in which every output is a placeholder that
`dvc commit` has recorded: the graph is the real one, no stage runs. Each stage's start is `--help`,
beside `python -c pass`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.timing import Seconds, alternate, benchmark_parser, markdown, median_ratio, print_conditions

ROOT = Path(__file__).parents[1]
DVC = [sys.executable, "-m", "dvc"]
REPRO, DVC_ALONE, NOTHING, PYTHON = "dvc repro, nothing to do", "dvc --version", "true", "python -c pass"


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=5)
    args = parser.parse_args()
    print_conditions()
    stages = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        record_placeholders(clone)
        commands = {
            REPRO: _run([*DVC, "repro", "--quiet"], clone),
            DVC_ALONE: _run([*DVC, "--version"], clone),
            NOTHING: _run(["true"], clone),
            PYTHON: _run([sys.executable, "-c", "pass"], ROOT),
            **{f"{s} --help": _run([sys.executable, "-m", f"stages.{s}", "--help"], ROOT) for s in stages},
        }
        seconds = alternate(commands, args.repeats)
    print(_table(seconds) + "\n")
    slowest = max((name for name in seconds if "--help" in name), key=lambda n: statistics.median(seconds[n]))
    print(f"{slowest} (the slowest), in starts of Python: {median_ratio(seconds[slowest], seconds[PYTHON])}")
    print(f"{REPRO}, in starts of DVC: {median_ratio(seconds[REPRO], seconds[DVC_ALONE])}")
    print(f"{REPRO}, in runs of `true`: {median_ratio(seconds[REPRO], seconds[NOTHING])}")


def record_placeholders(clone: Path) -> None:
    """Make every output of the clone's pipeline a small file, or folder with one, and record it as done."""
    for path in _paths(clone, "outs"):
        _write(path if path.suffix else path / "placeholder")
    for path in _paths(clone, "deps"):  # what a stage reads out of another's folder, such as its manifest
        if not path.exists():
            _write(path)
    _run([*DVC, "commit", "--force", "--quiet"], clone)()
    status = subprocess.run([*DVC, "status"], cwd=clone, capture_output=True, text=True, check=True)
    assert "up to date" in status.stdout, status.stdout


def _paths(clone: Path, kind: str) -> list[Path]:
    """The "outs" or the "deps" of all stages."""
    code = f"from dvc.repo import Repo; print(*(x.fs_path for x in Repo().index.{kind}), sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=True
    )
    return [clone / line for line in found.stdout.splitlines()]


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def _run(command: Sequence[str], folder: Path) -> Callable[[], None]:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}

    def run() -> None:
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    return run


def _table(seconds: Seconds) -> str:
    rows = [["", "seconds, median", "min..max"]]
    for name, values in seconds.items():
        rows.append([name, f"{statistics.median(values):.3g}", f"{min(values):.3g}..{max(values):.3g}"])
    return markdown(rows)


if __name__ == "__main__":
    main()
