from __future__ import annotations

import json
from pathlib import Path

import pytest

from mdprop.training import recorded


@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_the_first_process_keeps_the_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        group = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        for name, value in group.items():
            monkeypatch.setenv(name, value)
    with recorded("live/mdprop/0") as record:
        record(1, {"train/loss": 0.5})
        record(2, {"train/loss": 0.25, "validation/recall_at_1": 1.0})
    if rank == "1":
        assert list(tmp_path.iterdir()) == []
        return
    folder = tmp_path / "live" / "mdprop" / "0"
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary == {"train": {"loss": 0.25}, "validation": {"recall_at_1": 1.0}, "step": 2}
    curve = (folder / "plots" / "metrics" / "train" / "loss.tsv").read_text()
    assert curve.split() == ["step", "loss", "1", "0.5", "2", "0.25"]
