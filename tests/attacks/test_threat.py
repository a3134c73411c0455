from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mdprop import attacks
from mdprop.attacks import Threat, norms, pgd

STD = torch.tensor([0.2, 0.25]).view(2, 1, 1)


def test_a_threat_in_pixels() -> None:
    threat = Threat(goal="single_target", epsilon=0.04, steps=8)
    assert threat.in_pixels(0.04, STD) == 0.04
    assert threat.step_size(STD) == pytest.approx(0.005)
    assert threat.start == 0.04
    assert Threat(goal="single_target", epsilon=0.04, step_ratio=0.25).step_size(STD) == pytest.approx(0.01)
    assert Threat(goal="single_target", epsilon=0.04, start_noise=0.0).start == 0.0


def test_a_threat_in_standard_deviations() -> None:
    threat = Threat(goal="single_target", epsilon=0.01, units="normalized", steps=2)
    torch.testing.assert_close(threat.in_pixels(0.01, STD), torch.tensor([0.002, 0.0025]).view(2, 1, 1))
    torch.testing.assert_close(threat.step_size(STD), torch.tensor([0.001, 0.00125]).view(2, 1, 1))


@pytest.mark.parametrize(("written", "value"), [("8/255", 8 / 255), ("0.5", 0.5), (1, 1.0)])
def test_a_radius_may_be_a_fraction(written: Any, value: float) -> None:
    assert Threat(goal="single_target", epsilon=written).epsilon == pytest.approx(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"goal": "x"}, "unknown goal; known: single_target, "),
        ({"epsilon": -1}, "a number from 0 to 10000, such as 4/255, is needed"),
        ({"epsilon": "8/0"}, "a number from 0 to 10000, such as 4/255, is needed"),
        ({"epsilon": "1e999999999"}, "a number from 0 to 10000, such as 4/255, is needed"),
        ({"epsilon": 1.5}, r"epsilon: a number from 0 to 1 is needed, in pixels of \[0, 1\]"),
        ({"start_noise": 1.5}, r"start_noise: a number from 0 to 1 is needed, in pixels of \[0, 1\]"),
        ({"epsilon": 21, "units": "normalized"}, "epsilon: a number from 0 to 20 is needed, in standard"),
        ({"epsilon": True}, "a number from 0 to 10000"),
        ({"norm": "l1"}, "'linf' or 'l2'"),
        ({"norm": "l2", "units": "normalized"}, "units: norm l2 .* needs units: pixel"),
        ({"steps": 0}, "a whole number from 1 to 10000 is needed"),
        ({"step_ratio": 0}, "a number from 0.0001 to 1 is needed"),
        ({"restarts": 0}, "a whole number from 1 to 100 is needed"),
        ({"restarts": 2, "start_noise": 0}, "restarts: without start_noise all are the same: 1 is needed"),
        ({"goal": "untargeted", "start_noise": 0}, "start_noise: goal untargeted has no gradient at the"),
        ({"goal": "untargeted", "start_noise": 0, "optimizer": "apgd"}, "start_noise: goal untargeted has"),
        ({"radius": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Threat(**{"goal": "single_target", "epsilon": 0.1, **given})


def test_whose_eyes_a_threat_sees_through() -> None:
    own, other, transfer = (
        Threat(goal="single_target", epsilon=0.1, **to)
        for to in ({}, {"branch": "multi_target"}, {"branch": "clean", "source": "standard/0"})
    )
    assert (own.white_box, other.white_box, transfer.white_box) == (True, False, False)
    assert not Threat(goal="single_target", epsilon=0.1, source="standard/0").white_box
    assert other.seen_from("multi_target") == own
    assert other.seen_from("clean") == other
    assert transfer.seen_from("clean") == transfer
    for branch in ("all", "clean+25%multi_target"):
        assert Threat(goal="single_target", epsilon=0.1, branch=branch).branch == branch
    with pytest.raises(ValidationError, match="branch"):
        Threat(goal="single_target", epsilon=0.1, branch="clean+")


def test_names_that_need_torch_are_there_when_asked_for() -> None:
    assert attacks.feature_attack is pgd.feature_attack
    assert attacks.Bound is norms.Bound
    with pytest.raises(AttributeError, match=r"^module mdprop\.attacks has no attribute pgb$"):
        attacks.pgb  # noqa: B018


def test_no_radius_needs_no_start() -> None:
    assert Threat(goal="untargeted", epsilon=0, start_noise=0).start == 0
