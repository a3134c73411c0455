"""A run of the pipeline, measured again as a network from elsewhere."""

from __future__ import annotations

import json

from tests.pipeline.conftest import Project


def test_a_run_measured_again_has_the_numbers_of_the_pipeline(project: Project) -> None:
    out = project.path / "data" / "measured"
    done = project.run("python", "-m", "mdprop", "measure", "runs/mdprop/0", "--out", str(out))
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        {name: part for name, part in json.loads(file.read_text()).items() if isinstance(part, dict)}
        for file in (out / "metrics.json", project.path / "runs/mdprop/0/metrics.json")
    )
    assert ours == theirs
    assert "\nmeasured " in done.stdout
