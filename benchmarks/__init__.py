"""Programs that answer one question of speed each: `python -m benchmarks.<name>`, from the root."""

import stages  # noqa: F401  the stages' settings of threads and memory, so that the numbers are those of `dvc repro`
