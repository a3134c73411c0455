"""Programs that answer one question of speed each: `python -m benchmarks.<name>`, from the root."""

import stages  # noqa: F401  the stages' thread settings, so that the numbers are those of `dvc repro`
