"""A data set of any layout, packed into one Arrow file a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mdprop.data.audit import Audit, Duplicates, OnError, findings, refuse_duplicates
from mdprop.data.packing import find_copies, pack
from mdprop.data.readers import read_classes
from mdprop.data.readers.entries import (
    SPLITS,
    Evaluated,
    FractionOf,
    hold_out,
    keep_fraction,
    make_splits,
    validation_only,
)
from mdprop.data.readers.settings import ImageSettings
from mdprop.errors import DataError, disk_error
from mdprop.files import sealed_json, write_files
from mdprop.runtime.scratch import scratch_beside

MANIFEST = "manifest.json"


def prepare(
    name: str,
    settings: ImageSettings,
    out: str | Path,
    *,
    validation_classes: int = 0,
    evaluate: Evaluated = "test",
    train_fraction: float = 1.0,
    fraction_of: FractionOf = "images",
    on_error: OnError = "stop",
    duplicates: Duplicates = "refuse",
) -> dict[str, Any]:
    """Write out/{train,val,test}.arrow and out/manifest.json; the whole folder or nothing.

    Of data with queries and a gallery, test.arrow holds the queries and gallery.arrow is written too.

    name: the data set's key under `datasets`; settings: what stands there.
    validation_classes: how many of the training classes, the last ones, become "val"; not looked at
        where the data set brings a "val" of its own.
    evaluate: "validation": what would be "val" becomes "test", and the data set's own test classes are
        left out, so that nothing chosen by the results has seen them.
    train_fraction, fraction_of: see `keep_fraction`; of what is left to train on.
    on_error: whether images that cannot be used are an error, which names them all, or are left out.
    duplicates: whether images that have the same pixels and are in two splits are an error.

    Each image is turned upright, converted to `mode` and resized once so that its short side has
    `resize` pixels (bicubic, antialiased; small ones grow), then stored as `encode_entry` says.
    Labels count the classes, ids the images of train, val, test and gallery in this order; the
    gallery's classes are those of test. The same data give the same bytes.

    Returns the manifest: name, the settings that matter here, and per split the number of images
    and classes, the fewest and most images of a class, a SHA-256 of the content, and the digest of the
    store (see `mdprop.seals`), which its readers check; and the images that were left out, and
    duplicates (see `findings`).
    Raises `DataError`, one line, for whatever is wrong with the data set or its images, and where `out`
    holds something that `prepare` did not make.
    """
    out = Path(out)
    _refuse_foreign(out)
    splits = read_classes(settings, f"datasets.{name}")
    if "val" not in splits:
        splits["train"], splits["val"] = hold_out(splits["train"], validation_classes)
    if evaluate == "validation":
        splits = validation_only(splits)
    splits["train"] = keep_fraction(splits["train"], train_fraction, fraction_of)
    splits = make_splits(splits)
    used = {
        **settings.stored(),
        "validation_classes": validation_classes,
        "evaluate": evaluate,
        "train_fraction": train_fraction,
        "fraction_of": fraction_of,
    }
    audit = Audit()
    try:
        with scratch_beside(out) as scratch:
            new = scratch / "new"
            new.mkdir()
            packed = pack(name, splits, settings, new, audit)
            audit.refuse(on_error)
            copies = find_copies(new, splits, audit.digests)
            if duplicates == "refuse":
                refuse_duplicates(copies)
            manifest = {"name": name, "settings": used, "splits": packed, **findings(audit.skipped, copies)}
            write_files({new / MANIFEST: sealed_json(manifest)})
            if out.exists():
                _refuse_foreign(out)
                out.rename(scratch / "old")
            new.rename(out)
    except OSError as error:
        raise disk_error(error, out) or DataError(f"{out} cannot be written ({error})") from None
    return manifest


def _refuse_foreign(out: Path) -> None:
    """Raise `DataError` where something is at `out` that `prepare` did not make, as it would be replaced."""
    if not out.exists():
        return
    made = {MANIFEST, *(f"{split}.arrow" for split in SPLITS)}
    try:
        foreign = sorted(path.name for path in out.iterdir() if path.name not in made or path.is_dir())
        if not foreign and any(out.iterdir()):
            manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
            foreign = [] if {"name", "settings", "splits"} <= set(manifest) else [MANIFEST]
    except (OSError, ValueError, TypeError, RecursionError):
        foreign = [f"no {MANIFEST} of its own"] if out.is_dir() else ["a file"]
    if foreign:
        raise DataError(
            f"{out} was not made by prepare, which would replace it (there is {foreign[0]}): move it away"
        )
