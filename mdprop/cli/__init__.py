"""The `mdprop` command: settings by name, data, results and their check, trained networks at work."""

from mdprop.cli import data, deploy, experiments, models, results, settings, studies
from mdprop.cli.app import app
from mdprop.runtime.entrance import run_stage

__all__ = ["app", "data", "deploy", "experiments", "main", "models", "results", "settings", "studies"]


def main() -> None:
    """The console script: exit code 2 for the user's mistakes, 1 for a failed check."""
    run_stage(app)
