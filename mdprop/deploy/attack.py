"""One image moved towards another, and saved without loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from mdprop.attacks.norms import BALLS
from mdprop.attacks.optimizers import OPTIMIZERS, Attempt
from mdprop.attacks.threat import Threat
from mdprop.data.loading.transforms import to_float
from mdprop.deploy.pictures import image_file
from mdprop.deploy.trained import Trained
from mdprop.errors import ParameterError
from mdprop.files import whole_file
from mdprop.models import Embedder
from mdprop.models.embedder import embed_images
from mdprop.models.parts import frozen
from mdprop.runtime.hardware import device

LEVELS = 255
_ROUNDING = 1e-6  # of a level, so that 4/255 are 4


@dataclass(frozen=True)
class Moved:
    """How far an image came. Distances and cosines are those of unit embeddings, to the target's.

    size: [height, width] of the saved image. saved: of the file, read again as the pipeline reads one;
    unrounded: of the attack's result before its pixels were rounded to levels.
    epsilon: what was allowed; levels: the largest change of a pixel in the file, in levels of 255.
    """

    size: tuple[int, int]
    distance_before: float
    distance_unrounded: float
    distance_saved: float
    cosine_before: float
    cosine_saved: float
    epsilon: float
    levels: int
    changed: float

    def __str__(self) -> str:
        """A line a number, for people."""
        allowed = f"allowed {self.epsilon:.5f} = {self.epsilon * LEVELS:g}/255"
        distances = f"{self.distance_before:.4f} before, {self.distance_saved:.4f} after"
        cosines = f"{self.cosine_before:.4f} before, {self.cosine_saved:.4f} after"
        return "\n".join(
            (
                f"distance to the target   {distances}",
                f"cosine with the target   {cosines}",
                f"largest change           {self.levels / LEVELS:.5f} = {self.levels}/255 ({allowed})",
                f"pixels changed           {self.changed:.1%} of {self.size[1]} x {self.size[0]}",
                "after: of the file, read again; "
                f"before its pixels were rounded the distance was {self.distance_unrounded:.4f}",
            )
        )


def attack_image(
    trained: Trained, image: Path, target: Path, out: Path, *, epsilon: str | float, steps: int
) -> Moved:
    """Move an image towards another within an L-infinity ball (APGD), and write it as a PNG.

    epsilon: the radius in pixels of [0, 1], also as text such as "4/255".

    What is written has the short side that `prepare` gives images, so that the pipeline, `mdprop search`
    and others read it without resizing; its centre, which the network sees, is attacked. Pixels are
    rounded to levels that stay within the ball.

    Raises `DataError` for images that cannot be used, and `ParameterError` for an `out` that is no PNG or
    one of the two images, numbers that are not allowed, and an epsilon below one level of 255.
    """
    threat = _threat(epsilon, steps)
    _check_out(out, image, target)
    pipeline = trained.preprocessing
    stored, towards = pipeline.stored(image_file(image)), pipeline.pixels(image_file(target))
    model = trained.load(device())
    clean, aim = (_as_input(pixels, model) for pixels in (pipeline.seen(stored), towards))
    aims = embed_images(model, aim, model.mean.device)
    with frozen(model):
        moved = _attacked(model, clean, aims[None], threat)
    seen = _rounded(moved[0].cpu(), pipeline.seen(stored), threat.epsilon)
    written = _pasted(seen, stored, pipeline.image_size)
    with whole_file(out) as partial:
        _save_png(written, partial)
        again = pipeline.pixels(image_file(partial))
    changes = (again.int() - pipeline.seen(stored).int()).abs()

    def distance(pixels: Tensor) -> tuple[float, float]:
        embedding = embed_images(model, pixels, model.mean.device)
        return (embedding - aims).norm().item(), F.cosine_similarity(embedding, aims).item()

    before, saved = distance(clean), distance(_as_input(again, model))
    return Moved(
        size=(written.shape[1], written.shape[2]),
        distance_before=before[0],
        distance_unrounded=distance(moved)[0],
        distance_saved=saved[0],
        cosine_before=before[1],
        cosine_saved=saved[1],
        epsilon=threat.epsilon,
        levels=int(changes.max()),
        changed=changes.amax(0).bool().sum().item() / written[0].numel(),
    )


def _threat(epsilon: str | float, steps: int) -> Threat:
    given = {
        "goal": "single_target",
        "epsilon": epsilon,
        "steps": steps,
        "start_noise": 0,
        "optimizer": "apgd",
    }
    try:
        threat = Threat.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "epsilon"
        reason = first["msg"].removeprefix("Value error, ").removeprefix(f"{name}: ")
        raise ParameterError(f"--{name} {given[name]}: {reason}") from None
    if threat.epsilon * LEVELS + _ROUNDING < 1:
        raise ParameterError(f"--epsilon {epsilon}: 1/255 or more is needed, as a PNG has no finer levels")
    return threat


def _check_out(out: Path, image: Path, target: Path) -> None:
    if out.suffix.lower() != ".png":
        raise ParameterError(f"--out {out}: a .png file is needed, which keeps every pixel")
    if any(out.exists() and path.exists() and out.samefile(path) for path in (image, target)):
        raise ParameterError(f"--out {out} is an image that is read: give another name")


def _as_input(pixels: Tensor, model: Embedder) -> Tensor:
    """uint8 [C, H, W] -> [1, C, H, W] in [0, 1], on the model's device."""
    return to_float(pixels[None]).to(model.mean.device, memory_format=torch.channels_last)


def _attacked(model: Embedder, clean: Tensor, aims: Tensor, threat: Threat) -> Tensor:
    ball = BALLS[threat.norm](clean, threat.epsilon, 0.0, 1.0)
    goal, size = threat.wants, threat.step_size(model.std)
    attempt = Attempt(lambda x: goal.objective(model(x), aims), clean, ball, threat.steps, size, [[0]])
    return OPTIMIZERS[threat.optimizer](attempt)


def _rounded(moved: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """The levels nearest to `moved`, in [0, 1], of those within epsilon of `clean`: uint8 [C, H, W]."""
    reach = math.floor(epsilon * LEVELS + _ROUNDING)
    levels = (moved * LEVELS).round().int()
    low, high = (clean.int() + shift for shift in (-reach, reach))
    return levels.clamp(low, high).clamp(0, LEVELS).to(torch.uint8)


def _pasted(seen: Tensor, stored: Tensor, image_size: int) -> Tensor:
    """Stored pixels [C, H, W] with the square in their centre, where the network looks, replaced."""
    from torchvision.transforms.v2.functional import center_crop

    _, height, width = stored.shape
    places = torch.arange(height * width).view(1, height, width)
    first = int(center_crop(places, [image_size, image_size])[0, 0, 0])
    top, left = divmod(first, width)
    whole = stored.clone()
    whole[:, top : top + image_size, left : left + image_size] = seen
    return whole


def _save_png(pixels: Tensor, path: Path) -> None:
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, "PNG")
