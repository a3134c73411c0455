from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mdprop.layers import extract_branch
from mdprop.models import build_model, place


@pytest.mark.parametrize("backbone", ["conv4", "resnet18"])
def test_outputs_and_gradients_stay_what_they_are(backbone: str) -> None:
    torch.manual_seed(0)
    plain = build_model(backbone, 8).double()
    placed = place(copy.deepcopy(plain), "cpu")
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64)
    outputs = [model(images) for model in (plain, placed)]
    torch.testing.assert_close(outputs[0], outputs[1])
    for output in outputs:
        output[:, 0].sum().backward()
    for (name, mine), other in zip(plain.named_parameters(), placed.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, msg=name)
    assert plain.state_dict().keys() == placed.state_dict().keys()


def test_small_maps_of_a_resnet_are_contiguous_on_a_cpu() -> None:
    model = place(build_model("resnet18", 8, branches=("clean", "single_target")), "cpu")
    seen: dict[str, bool] = {}
    for name, module in model.network.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: seen.update(
                    {name: inputs[0].is_contiguous(memory_format=torch.channels_last)}
                )
            )
    model(torch.rand(2, 3, 64, 64))
    assert {name.split(".")[0] for name, last in seen.items() if last} == {"layer1", "layer2"}
    assert {name.split(".")[0] for name, last in seen.items() if not last} == {"layer3", "layer4"}
    assert extract_branch(model.network, "clean")(torch.rand(2, 3, 64, 64)).shape == (2, 8)
