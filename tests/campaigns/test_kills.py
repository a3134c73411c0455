"""A short form of the campaign of kills."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.campaigns.kills import Campaign, Trial

TRIALS = [
    Trial("train", signal.SIGKILL, True, 1, 0.7),
    Trial("attack", signal.SIGINT, True, 1, 0.8),
    Trial("prepare", signal.SIGKILL, False, 1, 0.7),
]


def test_what_is_killed_and_run_again_ends_in_the_same_bytes(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    done = [campaign.run(trial) for trial in TRIALS]
    held = sum(not trial.faults for trial in done)
    print(f"kills: {len(done)} tried, {held} held")
    assert {str(trial): trial.faults for trial in done if trial.faults} == {}
