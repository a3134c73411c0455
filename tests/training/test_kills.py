"""Trainings killed at random moments by real signals: all end in the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import PROJECT, small_store

# One program imports what it needs once; each attempt is a fork of it.
PROGRAM = """
import hashlib, json, os, random, signal, sys, time, warnings
from pathlib import Path

import torch
from mdprop.errors import reports_errors
from mdprop.config.schema import LossSettings, ModelSettings
from mdprop.data.readers.settings import ImageSettings
from mdprop.methods import METHODS
from mdprop.models import save_model
from mdprop.parallel.resume import kept
from mdprop.runtime.entrance import run_stage
from mdprop.training import train_run
from tests.helpers import attack_settings, train_settings
import dvclive

warnings.simplefilter("ignore")
torch.set_num_threads(1)
OUT, LIVE = Path("model"), Path("live")
SIZES = {"mode": "L", "resize": 16, "encoding": "raw", "image_size": 16}
IMAGES = ImageSettings.model_construct(**SIZES, crop_scale=(0.5, 1.0), flip=True, mean=(0.5,), std=(0.25,))


def stage():
    with kept("train", {"of": "kills"}) as state:
        model = train_run(
            METHODS["mdprop"],
            0,
            Path("prepared"),
            LIVE,
            images=IMAGES,
            model=ModelSettings(
                backbone="conv4",
                weights=None,
                embedding_dim=6,
                freeze_batchnorm="none",
                auxiliary_momentum=None,
            ),
            loss=LossSettings(
                name="s2sd", options={"target_dims": [8], "feature_delay": 3}, miner=None, miner_options={}
            ),
            settings=train_settings(epochs=3, validate_every=2, schedule="one_cycle"),
            attack=attack_settings(targets=2),
            state=state,
        )
        save_model(model, OUT, backbone="conv4", embedding_dim=6)


def attempt(seconds, number):
    child = os.fork()
    if not child:
        run_stage(stage)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digests():
    files = sorted(path for folder in (OUT, LIVE) for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def clean():
    for folder in (OUT, LIVE):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


begun = time.monotonic()
assert attempt(None, 0) == 0
took = time.monotonic() - begun
whole = digests()
draw = random.Random(int(sys.argv[1]))
found = []
for _ in range(int(sys.argv[2])):
    clean()
    codes = []
    while len(codes) < 20 and 0 not in codes:
        number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        codes.append(attempt(draw.uniform(0, took) if len(codes) < 3 else None, number))
    found.append([codes, digests() == whole, Path(".mdprop").exists()])
print("found", json.dumps([len(whole), found]))
"""


def test_kills(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    small_store(tmp_path / "prepared" / "train.arrow", classes=4, images=6)
    small_store(tmp_path / "prepared" / "val.arrow", classes=3, images=3)
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "MDPROP_STATE_EVERY": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "0", "3"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    files, found = json.loads(done.stdout.splitlines()[-1].removeprefix("found "))
    assert files == 5
    for codes, same, left in found:
        assert codes[-1] == 0, (codes, done.stderr)
        assert set(codes) <= {0, -9, 143, 130, -2, -15}
        assert same and not left
    assert any(codes != [0] for codes, _, _ in found)
    assert "Traceback" not in done.stderr
