"""Train one method with one seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mdprop.errors import reports_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def train(
    method: Annotated[str, typer.Option(help="A method of mdprop/distributions.py.")],
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches, augmentation and attacks.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.distributions import get_method

    p = load_params(params)
    chosen = get_method(method)

    import torch
    from dvclive import Live

    from mdprop.attacks import in_pixels
    from mdprop.data.datasets import TrainImages, train_loader
    from mdprop.data.samplers import ClassBalancedSampler
    from mdprop.data.store import ImageStore
    from mdprop.data.transforms import test_transform, train_transform
    from mdprop.losses import build_loss
    from mdprop.models import build_model, save_model
    from mdprop.runtime import device, provenance, workers
    from mdprop.training import TrainingAttack, recall_at_1
    from mdprop.training import train as train_model

    data, folder, hardware = p.active_dataset, Path("data/prepared") / p.dataset.name, device()
    store, validation = ImageStore(folder / "train.arrow"), ImageStore(folder / "val.arrow")
    sampler = ClassBalancedSampler(store.labels, p.train.batch_size, p.train.images_per_class, seed)
    images = TrainImages(store, train_transform(data.image_size, data.crop_scale, data.flip))
    torch.manual_seed(seed)
    architecture: dict[str, Any] = p.model.model_dump()
    model = build_model(**architecture, branches=chosen.branches, mean=data.mean, std=data.std)
    model = model.to(hardware).to(memory_format=torch.channels_last)
    loss = build_loss(p.loss.name, p.loss.options).to(hardware)
    attack = None
    if chosen.adversarial:
        attack = TrainingAttack(
            targets=p.attack.targets if chosen.uses_multi_target else 1,
            target_kind=p.attack.target_kind,
            epsilon=in_pixels(p.attack.epsilon, p.attack.units, model.std),
            steps=p.attack.steps,
            start_noise=in_pixels(p.attack.start_noise, p.attack.units, model.std),
        )
    loop = p.train.model_dump(include={"epochs", "learning_rate", "weight_decay", "schedule"})
    every = p.train.validate_every if len(validation) else 0
    transform = test_transform(data.resize, data.image_size)
    with Live(f"live/{method}/{seed}", dvcyaml=None, save_dvc_exp=False) as live:

        def after_epoch(epoch: int, values: Mapping[str, float]) -> None:
            live.step = epoch
            for name, value in values.items():
                live.log_metric(f"train/{name}", value)
            if every and (epoch % every == 0 or epoch == p.train.epochs):
                live.log_metric("validation/recall_at_1", recall_at_1(model, validation, transform, hardware))
            live.make_summary()

        loader = train_loader(images, sampler, workers())
        train_model(model, loss, chosen, loader, seed=seed, attack=attack, after_epoch=after_epoch, **loop)
    details: dict[str, Any] = {"method": method, "seed": seed, "provenance": provenance()}
    details["parameters"] = p.model_dump(exclude_unset=True)
    save_model(model, Path("runs") / method / str(seed), **architecture, **details)


if __name__ == "__main__":
    reports_errors(app)()
