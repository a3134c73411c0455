"""Train one method with one seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mdprop.errors import reports_errors
from mdprop.parallel.launch import in_processes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
@in_processes
def train(
    method: Annotated[str, typer.Option(help="A method of mdprop/distributions.py.")],
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches, augmentation and attacks.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.methods import CLEAN, get_method

    p = load_params(params)
    chosen = get_method(method)

    import torch

    from mdprop.attacks import in_pixels
    from mdprop.data.loading.datasets import TrainImages, train_loader
    from mdprop.data.loading.samplers import ClassBalancedSampler
    from mdprop.data.loading.transforms import test_transform, train_transform
    from mdprop.data.stores.images import ImageStore
    from mdprop.layers import reset_statistics
    from mdprop.losses import build_loss
    from mdprop.models import build_model, place, save_model
    from mdprop.runtime.hardware import device, is_main, workers
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.provenance import provenance
    from mdprop.training import TrainingAttack, clean_rows, recall_at_1, recorded
    from mdprop.training import train as train_model

    keep_memory()
    data, folder, hardware = p.active_dataset, Path("data/prepared") / p.dataset.name, device()
    store, validation = ImageStore(folder / "train.arrow"), ImageStore(folder / "val.arrow")
    batches = p.train.model_dump(include={"batch_size", "images_per_class"})
    places = clean_rows(chosen, p.train.batch_size)
    draws: dict[str, Any] = {"seed": seed, "replacement": p.train.class_replacement}
    sampler = ClassBalancedSampler(store.labels, **batches, **draws, places=places)
    images = TrainImages(store, train_transform(data.image_size, data.crop_scale, data.flip))
    torch.manual_seed(seed)
    architecture = p.model.model_dump(include={"backbone", "embedding_dim"})
    start = p.model.model_dump(include={"weights", "freeze_batchnorm"})
    model = build_model(**architecture, **start, branches=chosen.branches, mean=data.mean, std=data.std)
    model = place(model, hardware)
    sizes: dict[str, Any] = {"embedding_dim": p.model.embedding_dim, "feature_dim": model.feature_dim}
    loss = build_loss(**p.loss.model_dump(), **sizes, num_classes=len(store.class_names)).to(hardware)
    attack = None
    if chosen.adversarial:
        rules: dict[str, Any] = {name: p.attack.rule(name) for name in ("target_kind", "clip")}
        for name in ("epsilon", "start_noise"):
            rules[name] = in_pixels(getattr(p.attack, name), p.attack.rule("units"), model.std)
        targets = p.attack.targets if chosen.uses_multi_target else 1
        rules |= p.attack.model_dump(include={"steps", "shared_forward"})
        attack = TrainingAttack(targets, **rules)
        if p.attack.rule("batchnorm_start") == "reset":
            reset_statistics(model, but=CLEAN)
    keys = {"epochs", "learning_rate", "learning_rates", "weight_decay", "schedule", "precision"}
    loop = p.train.model_dump(include=keys)
    every = p.train.validate_every if len(validation) else 0
    transform = test_transform(data.resize, data.image_size)
    with recorded(f"live/{method}/{seed}") as record:

        def after_epoch(epoch: int, values: Mapping[str, float]) -> None:
            curves = {f"train/{name}": value for name, value in values.items()}
            if every and (epoch % every == 0 or epoch == p.train.epochs):
                curves["validation/recall_at_1"] = recall_at_1(model, validation, transform, hardware)
            record(epoch, curves)

        loader = train_loader(images, sampler, workers())
        train_model(model, loss, chosen, loader, seed=seed, attack=attack, after_epoch=after_epoch, **loop)
    details: dict[str, Any] = {"method": method, "seed": seed, "provenance": provenance()}
    details["parameters"] = p.model_dump(exclude_unset=True)
    if is_main():
        save_model(model, Path("runs") / method / str(seed), **architecture, **details)


if __name__ == "__main__":
    reports_errors(app)()
