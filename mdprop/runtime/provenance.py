"""What made a result."""

from __future__ import annotations

import subprocess

from mdprop.runtime.hardware import device


def provenance() -> dict[str, str]:
    """What made a result: versions, the commit and the kind of hardware. No clock, no host name."""
    import platform

    import torch

    import mdprop

    return {
        "mdprop": mdprop.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit of the working directory, with + where it has changes; "unknown" without git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
