"""Give a torchvision ResNet one batch norm per input distribution, and take the clean network away again."""

from __future__ import annotations

import torch
from torchvision.models import resnet18

from mdprop.layers import convert_batchnorm, extract_branch, multi_batchnorms, route


def main() -> None:
    torch.manual_seed(0)
    network = convert_batchnorm(resnet18(num_classes=128), ["clean", "single_target", "multi_target"])
    print(f"{len(multi_batchnorms(network))} batch-norm layers have 3 branches each")

    # Slices of one batch, in this order, each through a batch norm of its own.
    images = torch.rand(8, 3, 64, 64)
    network.train()
    with route(network, {"clean": 4, "single_target": 2, "multi_target": 2}):
        network(images)

    # Without `route` everything goes through "clean".
    network.eval()
    with torch.no_grad(), route(network, "multi_target"):
        multi_target = network(images)
    clean = network(images)
    print(f"the branches have drifted apart: {not torch.equal(clean, multi_target)}")

    # The clean branch is a plain network, with the keys that torchvision knows.
    plain = resnet18(num_classes=128).eval()
    plain.load_state_dict(extract_branch(network, "clean").state_dict())
    print(f"torchvision's network gives the same output: {torch.equal(plain(images), clean)}")


if __name__ == "__main__":
    main()
