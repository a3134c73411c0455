from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdprop.attacks import Threat
from mdprop.config.attacks import AdversarySettings
from mdprop.config.schema import EvaluateSettings
from mdprop.data.loading import transforms
from mdprop.data.stores.queries import read_queries
from mdprop.errors import MDPropError, ModelError, ResultError
from mdprop.models import build_model, export_network, load_model, save_model
from mdprop.robustness.embedding import extract_embeddings, input_batches
from mdprop.robustness.measure import left_out, measure
from mdprop.robustness.networks import Network, load_network
from mdprop.robustness.results import write_results
from mdprop.robustness.sets import attacked_model, attacks_on_itself, make_sets
from mdprop.robustness.stores import clean_stores
from mdprop.runs import Run
from tests.helpers import adversary_settings, randomize_norms, small_store

MEAN, STD = [0.4], [0.3]
TRANSFORM = transforms.test_transform(20, 20)
EVALUATE = EvaluateSettings(ks=(1, 2), seed=0, exact_limit=10**6)
SUITE: dict[str, dict[str, Any]] = {
    "away": {},
    "in_deviations": {"goal": "single_target", "units": "normalized", "epsilon": 0.3},
    "search": {"optimizer": "square", "steps": 5},
}


def adversary(sets: dict[str, dict[str, Any]] = SUITE) -> AdversarySettings:
    shared = {"goal": "untargeted", "epsilon": 0.1, "steps": 2}
    threats = {name: Threat(**{**shared, **own}) for name, own in sets.items()}
    return adversary_settings(threats, queries=15)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with prepared images, a run of three branches and the clean one's export."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    small_store(Path("data/test.arrow"), classes=5, images=4, size=20)
    torch.manual_seed(0)
    model = build_model("conv4", 6, branches=("clean", "a", "b"), mean=MEAN, std=STD).eval()
    randomize_norms(model)
    save_model(model, "runs/mdprop/0", backbone="conv4", embedding_dim=6)
    export_network("runs/mdprop/0", "network.safetensors")
    Path("net.py").write_text(
        "from mdprop.models import load_model\n"
        "def network():\n"
        "    return load_model('runs/mdprop/0', branch='clean').network\n"
    )
    return tmp_path


def export_program() -> None:
    program = load_model("runs/mdprop/0", branch="clean")
    images = torch.rand(3, 1, 20, 20)
    shapes = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(program, (images,), dynamic_shapes=shapes), "net.pt2")


def pipeline(branch: str, settings: AdversarySettings) -> dict[str, Any]:
    """metrics.json as the stages write it for the run."""
    run, stores = Run("mdprop", 0), clean_stores(Path("data"))
    threats = run.met(settings.sets)
    plan = attacks_on_itself(run, [branch], threats)
    make_sets(run, plan, partial(attacked_model, run), stores["clean"], TRANSFORM, settings)
    for name, batches in input_batches(run, branch, stores, TRANSFORM, threats).items():
        model = load_model(run.folder, branch=branch)
        extract_embeddings(model, batches, run.embeddings(branch, name), torch.device("cpu"))
    write_results(run, [branch], threats, EVALUATE)
    return numbers(run.metrics)


def numbers(path: Path) -> dict[str, Any]:
    return {name: part for name, part in json.loads(path.read_text()).items() if isinstance(part, dict)}


def measured(network: Network, settings: AdversarySettings | None = None, out: str = "measured/x") -> Path:
    stores = clean_stores(Path("data"))
    measure(network, Path(out), stores, TRANSFORM, settings or adversary(), EVALUATE)
    return Path(out)


def flat(forward: Any = None) -> Network:
    """A linear network of fixed weights, or another one over its embeddings."""
    torch.manual_seed(0)
    layer = nn.Linear(400, 6)

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, images: Tensor) -> Any:
            return layer(images.flatten(1)) if forward is None else forward(layer, images)

    return Network.of(Flat(), MEAN, STD, name="flat")


def test_every_form_of_a_network_gives_the_numbers_of_the_pipeline(work: Path) -> None:
    expected = pipeline("clean", adversary())
    assert expected["clean"]["queries"] == 20 and expected["worst_case"]["queries"] == 15
    assert 0 < expected["away"]["recall_at_1"] < expected["clean"]["recall_at_1"]
    export_program()
    networks = {
        "function": load_network("net.py:network", MEAN, STD, normalize=True),
        "program": load_network("net.pt2", MEAN, STD),
        "state": load_network("network.safetensors", MEAN, STD, backbone="conv4"),
        "run": load_network("runs/mdprop/0", MEAN, STD),
        "module": Network.of(load_model("runs/mdprop/0", branch="clean"), MEAN, STD),
    }
    for form, network in networks.items():
        found = numbers(measured(network, out=form) / "metrics.json")
        assert list(found) == list(expected), form
        for name, part in expected.items():
            assert found[name] == pytest.approx(part, abs=2e-5), (form, name)


@pytest.mark.parametrize("branch", ["b", "clean+25%a"])
def test_another_branch_of_a_run_and_attacks_through_others(work: Path, branch: str) -> None:
    settings = adversary({"away": {}, "through_a": {"branch": "a"}, "joint": {"branch": "all"}})
    expected = pipeline(branch, settings)
    out = measured(load_network("runs/mdprop/0", MEAN, STD, branch=branch), settings)
    assert numbers(out / "metrics.json") == expected
    assert f"joint@{branch}" in expected


def test_the_folder_is_laid_out_as_that_of_a_run(work: Path) -> None:
    pipeline("clean", adversary())
    out = measured(flat())
    theirs, ours = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in (Path("runs/mdprop/0"), out)
    )
    assert ours - theirs == {"measured.json"}
    assert theirs - ours == {"model.json", "model.safetensors"}
    assert {f"adversarial/{name}.arrow" for name in SUITE} <= ours
    table = read_queries(out / "queries.parquet", ["set", "hit"]).to_pydict()
    assert table["set"].count("away") == 15


def test_the_folder_says_what_was_measured_and_how(work: Path) -> None:
    record = json.loads((measured(flat()) / "measured.json").read_text())
    assert (record["network"], record["branch"], record["images"]) == ("flat", "clean", "data/test.arrow")
    assert record["adversary"]["sets"]["search"]["optimizer"] == "square"
    assert set(record["provenance"]) >= {"mdprop", "torch", "device"}


def test_corruptions_are_measured_with_the_attacks(work: Path) -> None:
    out = Path("measured/x")
    stores = clean_stores(Path("data"))
    sets = {"gaussian_noise_5": ("gaussian_noise", 5), "fog_1": ("fog", 1)}
    measure(flat(), out, stores, TRANSFORM, adversary(), EVALUATE, sets)
    found = numbers(out / "metrics.json")
    assert found["gaussian_noise_5"]["moved"] > 0
    mean = (found["gaussian_noise_5"]["recall_at_1"] + found["fog_1"]["recall_at_1"]) / 2
    assert found["corruptions"]["recall_at_1"] == pytest.approx(mean)


def test_queries_search_the_gallery_where_there_is_one(work: Path) -> None:
    small_store(Path("data/gallery.arrow"), classes=5, images=2, size=20, seed=1)
    out = measured(flat())
    assert (out / "embeddings/gallery.parquet").exists()
    assert numbers(out / "metrics.json")["clean"]["queries"] == 20


def test_attacks_on_others_are_left_out(work: Path) -> None:
    settings = adversary(
        {
            "away": {},
            "same": {"branch": "clean"},
            "through_a": {"branch": "a"},
            "joint": {"branch": "all"},
            "from_x": {"source": "x/0"},
        }
    )
    run = load_network("runs/mdprop/0", MEAN, STD)
    assert left_out(flat(), settings.sets) == ["through_a", "joint", "from_x"]
    assert left_out(run, settings.sets) == ["from_x"]
    found = numbers(measured(flat(), settings) / "metrics.json")
    assert {"away", "same"} <= set(found)
    assert not {"through_a", "joint", "from_x"} & set(found)


def test_a_suite_of_attacks_on_others_only_is_refused(work: Path) -> None:
    with pytest.raises(ResultError, match=r"^adversary\.sets: none is an attack on the network"):
        measured(flat(), adversary({"joint": {"branch": "all"}}))
    assert not Path("measured").exists()


def test_a_network_that_cannot_be_measured_leaves_no_trace(work: Path) -> None:
    with pytest.raises(ModelError, match=r"^flat has no gradient of its pixels"):
        measured(flat(lambda layer, images: layer(images.flatten(1)).detach()))
    assert not Path("measured").exists()


def test_without_gradients_a_network_still_meets_attacks_that_need_none(work: Path) -> None:
    def forward(layer: nn.Module, images: Tensor) -> Tensor:
        with torch.no_grad():
            return layer(images.flatten(1))

    blind = {"search": {"optimizer": "square"}, "noise": {"optimizer": "noise"}}
    assert "search" in numbers(measured(flat(forward), adversary(blind)) / "metrics.json")


def test_masked_gradients_are_measured_and_found(work: Path) -> None:
    masked = flat(lambda layer, images: layer((images * 8).round().flatten(1)))
    found = json.loads((measured(masked) / "checks.json").read_text())
    assert "no_gradient" in {finding["check"] for finding in found["clean"]}
    sound = json.loads((measured(flat()) / "checks.json").read_text())
    assert "no_gradient" not in {finding["check"] for finding in sound["clean"]}


def test_an_earlier_measurement_is_replaced(work: Path) -> None:
    out = measured(flat())
    (out / "notes.md").write_text("mine")
    measured(flat(), adversary({"other": {}}))
    assert {path.name.split(".")[0] for path in (out / "adversarial").iterdir()} == {"other"}
    assert "away" not in numbers(out / "metrics.json")
    assert (out / "notes.md").read_text() == "mine"


def test_a_measurement_that_fails_midway_leaves_no_old_numbers(work: Path) -> None:
    out = measured(flat())
    calls = iter(range(1000))

    def forward(layer: nn.Module, images: Tensor) -> Tensor:
        if next(calls) > 6:
            raise ValueError("enough")
        return layer(images.flatten(1))

    with pytest.raises(ModelError, match=r"^flat fails on images \[\d+, 1, 20, 20\]: ValueError: enough"):
        measured(flat(forward))
    assert not (out / "metrics.json").exists()
    measured(flat())


@pytest.mark.parametrize("there", ["runs/mdprop/0", "data", "network.safetensors", "work/nested"])
def test_what_is_no_measurement_is_not_touched(work: Path, there: str) -> None:
    if there == "work/nested":
        Path(there).mkdir(parents=True)
        Path(there, "metrics.json").write_text("{}")
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    with pytest.raises(MDPropError, match=r"give (another|a) folder"):
        measured(flat(), out=there)
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_an_empty_folder_may_be_there(work: Path) -> None:
    Path("measured/x").mkdir(parents=True)
    assert (measured(flat()) / "metrics.json").exists()
