"""What a stage says before anything else: which run of how many it is on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from mdprop.errors import MDPropError
from tests.pipeline.conftest import ROOT, set_params

SETS = {
    "own": {"goal": "untargeted"},
    "first": {"goal": "untargeted", "source": "standard/0"},
    "second": {"goal": "untargeted", "source": "at/0"},
}


@pytest.mark.parametrize(
    ("stage", "run", "place"),
    [
        *((stage, ("at", 0), "run 2 of 4") for stage in ("train", "attack", "embed", "evaluate")),
        ("surrogate", ("at/0",), "run 2 of 2"),
    ],
)
def test_a_stage_says_which_run_of_how_many_it_is_on(
    stage: str,
    run: tuple[str | int, ...],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    set_params(params, {"adversary.sources": ["standard/0", "at/0"], "adversary.sets": SETS})
    monkeypatch.chdir(tmp_path)
    command = getattr(import_module(f"stages.{stage}"), stage)
    with pytest.raises(MDPropError, match=r"runs/at/0|data/prepared"):
        command(*run)
    assert capsys.readouterr().out == f"{stage} at/0, {place}\n"
