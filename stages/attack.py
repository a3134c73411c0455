"""Make the adversarial test sets of one trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.errors import reports_errors
from mdprop.parallel.launch import in_processes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
@in_processes
def attack(
    method: Annotated[str, typer.Option(help="The method that the model was trained with.")],
    seed: Annotated[int, typer.Option(min=0, help="The seed that it was trained with.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.methods import goal_of

    p = load_params(params)

    from mdprop.attacks import in_pixels
    from mdprop.data.loading.transforms import test_transform
    from mdprop.data.stores.adversarial import write_adversarial
    from mdprop.data.stores.images import ImageStore
    from mdprop.models import load_model
    from mdprop.parallel.exchange import turns
    from mdprop.robustness.generation import Threat, generate_set, sample_rows
    from mdprop.runtime.hardware import device
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.progress import track

    keep_memory()
    data, adversary = p.active_dataset, p.adversary
    run = Path("runs") / method / str(seed)
    model = load_model(run, device())
    store = ImageStore(Path("data/prepared") / p.dataset.name / "test.arrow")
    rows = sample_rows(len(store), adversary.queries, adversary.seed)
    transform = test_transform(data.resize, data.image_size)
    for name, epsilon in track(adversary.sets.items(), f"attacking {method} {seed}, sets"):
        goal = goal_of(name)
        assert goal is not None
        threat = Threat(
            goal=goal,
            epsilon=in_pixels(epsilon, adversary.units, model.std),
            steps=adversary.steps,
            step_ratio=adversary.step_ratio,
            targets=adversary.targets,
        )
        batches = generate_set(model, store, rows, transform, threat, adversary.seed, device(), turns())
        settings = {"goal": goal, "epsilon": epsilon, **adversary.model_dump(exclude={"sets"})}
        write_adversarial(run / "adversarial" / f"{name}.arrow", batches, settings)


if __name__ == "__main__":
    reports_errors(app)()
