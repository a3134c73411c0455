from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mdprop.errors import ModelError
from mdprop.models import Embedder, build_model, export_network, load_model, save_model
from mdprop.robustness.networks import Network, load_network
from tests.helpers import randomize_norms

MEAN, STD = [0.4], [0.3]
IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
CODE = """
import torch
from torch import nn

from beside import WIDTH


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, WIDTH)

    def forward(self, images):
        return self.layer(images.flatten(1))


def network():
    torch.manual_seed(0)
    return Flat()


def not_one():
    return {"layer": 3}


def of_two(a, b):
    return Flat()


def fails():
    raise OSError("no\\nweights")


instance = network()
number = 3
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run, its export and a module of code."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = build_model("conv4", 7, branches=("clean", "b"), mean=MEAN, std=STD).eval()
    randomize_norms(model)
    save_model(model, "runs/mdprop/0", backbone="conv4", embedding_dim=7)
    for suffix in ("safetensors", "pth"):
        export_network("runs/mdprop/0", f"network.{suffix}")
    Path("code").mkdir()
    Path("code/beside.py").write_text("WIDTH = 6\n")
    Path("code/net.py").write_text(CODE)
    return tmp_path


def load(text: str, **options: object) -> Network:
    return load_network(text, MEAN, STD, **options)  # type: ignore[arg-type]


def embedded(network: Network, branch: str = "clean") -> Tensor:
    with torch.no_grad():
        return network.load(branch)(IMAGES)


def exported(network: nn.Module, *, batch: int = 5, dynamic: bool = True) -> None:
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(network, (IMAGES[:batch],), dynamic_shapes=shapes)
    save_program(program)


def save_program(program: torch.export.ExportedProgram) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, "net.pt2")


def traced(network: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, IMAGES).save("net.pt")


def test_a_function_of_a_file_with_another_beside_it(work: Path) -> None:
    embeddings = embedded(load("code/net.py:network"))
    assert embeddings.shape == (5, 6)
    assert torch.equal(embeddings, embedded(load(f"{work}/code/net.py:network")))
    assert torch.equal(embeddings, embedded(load("code/net.py:instance")))


def test_a_function_of_a_package(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(work / "code"))
    assert embedded(load("net:network")).shape == (5, 6)


@pytest.mark.parametrize("write", [exported, traced])
@pytest.mark.parametrize("normalize", [True, False])
def test_exported_programs_are_the_network_with_its_gradients(
    work: Path, write: Callable[[nn.Module], None], normalize: bool
) -> None:
    model = load_model("runs/mdprop/0", branch="clean")
    write(model.network if normalize else model)
    network = load("net.pt2" if write is exported else "net.pt", normalize=normalize)
    for size in (1, 2, 5):
        gradients = []
        for each in (model, network.load("clean")):
            pixels = IMAGES[:size].clone().requires_grad_()
            out = each(pixels)
            out[:, 0].sum().backward()
            gradients.append((out.detach(), pixels.grad))
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_state_dict_is_the_branch_that_was_exported(work: Path, suffix: str) -> None:
    expected = load_model("runs/mdprop/0", branch="clean")
    with torch.no_grad():
        assert torch.equal(embedded(load(f"network.{suffix}", backbone="conv4")), expected(IMAGES))


def test_a_state_dict_of_a_network_of_colours(work: Path) -> None:
    model = build_model("resnet18", 5, mean=MEAN, std=STD).eval()
    torch.save(model.network.state_dict(), "resnet.pth")
    with torch.no_grad():
        torch.testing.assert_close(embedded(load("resnet.pth", backbone="resnet18")), model(IMAGES))


@pytest.mark.parametrize("branch", ["clean", "b", "clean+25%b"])
def test_the_folder_of_a_run_answers_through_a_branch(work: Path, branch: str) -> None:
    network = load("runs/mdprop/0", branch=branch)
    assert (network.answers, network.branches) == (branch, {"clean", "b"})
    with torch.no_grad():
        assert torch.equal(embedded(network, branch), load_model("runs/mdprop/0", branch=branch)(IMAGES))
    assert load("runs/mdprop/0").answers == "clean"


def test_a_folder_of_any_name_may_hold_a_run(work: Path) -> None:
    (work / "runs/mdprop/0").rename(work / "mine")
    assert isinstance(load("mine").load("clean"), Embedder)


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("nothing", {}, r"^nothing does not exist: give file\.py:function .*, or the folder of a run$"),
        ("nothing.py:f", {}, r"^nothing\.py cannot be imported: FileNotFoundError"),
        ("no.such:f", {}, r"^no\.such cannot be imported: ModuleNotFoundError: No module named 'no'$"),
        (":f", {}, r"^ cannot be imported: ValueError: Empty module name$"),
        ("text.md", {}, r"^text\.md is of no known kind: give "),
        ("broken.py:f", {}, r"^broken\.py cannot be imported: SyntaxError: .*broken\.py, line 1"),
        ("code/net.py", {}, r"^code/net\.py: name the function .*, code/net\.py:function$"),
        ("code/net.py:nothing", {}, r"^code/net\.py has no function 'nothing'$"),
        ("code/net.py:number", {}, r"^code/net\.py has no function 'number'$"),
        (
            "code/net.py:not_one",
            {},
            r"^code/net\.py:not_one\(\) returns a dict",
        ),
        ("code/net.py:of_two", {}, r"^code/net\.py:of_two\(\) fails: TypeError: .* 'a' and 'b'$"),
        (
            "code/net.py:fails",
            {},
            r"^code/net\.py:fails\(\) fails: OSError: no weights \(.*net\.py, line 31\)$",
        ),
        ("cut.pt2", {}, r"^cut\.pt2 is no program that torch\.export\.save wrote: "),
        ("cut.pt", {}, r"^cut\.pt is no TorchScript \(.*\); a state dict needs --backbone$"),
        ("network.pth", {}, r"^network\.pth is a state dict: say of which network, --backbone"),
        ("network.pth", {"backbone": "resnet18"}, r"^network\.pth does not fit resnet18 for 1 channels: "),
        ("network.pth", {"backbone": "vgg"}, r"unknown backbone 'vgg'; known: conv4"),
        ("cut.pt", {"backbone": "conv4"}, r"^cut\.pt (is damaged|cannot be read)"),
        ("none.pth", {"backbone": "conv4"}, r"^no file .*none\.pth"),
        (
            "other.pth",
            {"backbone": "conv4"},
            r"^other\.pth has no fc\.weight: it is no conv4 that mdprop export",
        ),
        (
            "runs/mdprop/0/model.safetensors",
            {"backbone": "conv4"},
            r"several batch-norm branches: give the folder of its run",
        ),
        ("runs/mdprop", {}, r"^no model in runs/mdprop: "),
        ("runs/mdprop/0", {"branch": "c"}, r"^runs/mdprop/0: .*'c'"),
        ("runs/mdprop/0", {"branch": "a+b"}, r"is no batch-norm branch"),
        ("runs/mdprop/0", {"normalize": True}, r"^runs/mdprop/0 is a folder: --normalize is not for it"),
        ("runs/mdprop/0", {"backbone": "conv4"}, r"^runs/mdprop/0 is a folder: --backbone is not for it"),
        ("code/net.py:network", {"branch": "clean"}, r"is no folder of a run: --branch is not for it"),
        ("network.pth", {"backbone": "conv4", "normalize": True}, r"state dict: --normalize is not for it"),
    ],
)
def test_what_is_no_network_is_said_in_one_line(
    work: Path, text: str, options: dict[str, object], problem: str
) -> None:
    Path("text.md").write_text("a network\n")
    Path("broken.py").write_text("x = (")
    for name in ("cut.pt", "cut.pt2"):
        Path(name).write_bytes(Path("network.pth").read_bytes()[:2000])
    torch.save({"layer.weight": torch.ones(3)}, "other.pth")
    with pytest.raises(ModelError, match=problem) as caught:
        load(text, **options)
    assert "\n" not in str(caught.value)


def test_a_program_of_one_batch_size_is_refused(work: Path) -> None:
    exported(nn.Flatten(), batch=4, dynamic=False)
    with pytest.raises(ModelError, match=r"^net\.pt2 takes batches of 4 only: .*dynamic_shapes=\(\{0: "):
        load("net.pt2")


def test_a_program_of_two_inputs_is_refused(work: Path) -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    save_program(torch.export.export(Sum(), (IMAGES, IMAGES)))
    with pytest.raises(ModelError, match=r"^net\.pt2 takes 2 inputs: a network of one, the images"):
        load("net.pt2")
