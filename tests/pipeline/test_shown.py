"""What DVC shows of a run."""

import json


def test_dvc_shows_three_numbers_a_method(project):
    done = project.run("dvc", "metrics", "show", "--json")
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout)[""]["data"].values()
    metrics = json.loads((project.path / "report" / "metrics.json").read_text())
    assert list(shown["data"]) == list(metrics)
    for method, values in shown["data"].items():
        assert list(values) == ["recall_at_1", "worst_case", "map_at_r"]
        assert values["worst_case"] == metrics[method]["worst_case"]["recall_at_1"]["mean"]
