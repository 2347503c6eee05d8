"""Fit a smooth displacement to the probabilities of a dense match."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_displacement, check_volumes
from triton_reg.ops.operators import array, check_device, has_kernel, operator

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a displacement is fitted; the defaults are those of the released PDD-Net code.

    Attributes:
        iterations: steps of Adam, the first of which sees the match as it is.
        learning_rate: of Adam, as a share of half the volume's extent.
        smoothness: weight of the mean squared difference of neighbouring control points, in the
            same unit.
    """

    iterations: int = 50
    learning_rate: float = 0.02
    smoothness: float = 1.5

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.learning_rate <= 0 or self.smoothness < 0:
            raise ValueError(
                "FitSettings: needs at least one iteration, a positive learning rate and no "
                f"negative smoothness, got {self}"
            )


def instance_fit(
    probabilities: Tensor, mean: Tensor, label_step: Vector, settings: FitSettings
) -> Tensor:
    """Displacement that is likely at every control point and differs little between them.

    Adam on parameters ``P``, from the match's expectation: ``Φ`` is twice the mean of ``P`` over
    3 x 3 x 3 control points, zeros outside; the loss is ``smoothness Σ_axes mean (∂Φ)²`` minus the
    mean probability at ``Φ``, read linearly between labels. The result is the ``Φ`` of the last
    step's forward pass, as in the released PDD-Net code (Heinrich, MICCAI 2019, "instance
    optimisation").

    Args:
        probabilities: ``[B, L, d, h, w]``, last label axis fastest.
        mean: expected displacement ``[B, 3, d, h, w]`` in label steps, channel i along axis i.
        label_step: length of a label step along each axis, as a share of half the extent.
        settings: see :class:`FitSettings`.

    Returns:
        ``[B, 3, d, h, w]`` in label steps; each pair as it would be alone.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    check_volumes("instance_fit", probabilities=probabilities)
    check_displacement("instance_fit", mean)
    width = round(probabilities.shape[1] ** (1 / 3))
    if (
        width**3 != probabilities.shape[1]
        or probabilities.shape[0] != mean.shape[0]
        or probabilities.shape[2:] != mean.shape[2:]
    ):
        raise ValueError(
            "instance_fit: probabilities must be [B, width³, d, h, w] on the grid of mean, got "
            f"{list(probabilities.shape)} and {list(mean.shape)}"
        )
    check_device("instance_fit", mean)
    if not has_kernel(
        probabilities, mean
    ):  # autograd, which the reference needs, ends at operators
        return instance_fit_reference(probabilities, mean, label_step, settings)
    return _instance_fit(probabilities, mean, label_step, *astuple(settings))


def instance_fit_reference(
    probabilities: Tensor, mean: Tensor, label_step: Vector, settings: FitSettings
) -> Tensor:
    """Plain torch definition of :func:`instance_fit`."""
    pairs = zip(probabilities.split(1), mean.split(1), strict=True)
    return torch.cat([_fitted(*pair, label_step, settings) for pair in pairs])


def _fitted(
    probabilities: Tensor, mean: Tensor, label_step: Vector, settings: FitSettings
) -> Tensor:
    """One pair."""
    unit = mean.new_tensor(label_step).view(1, 3, 1, 1, 1)
    parameters = (mean.detach() * unit).requires_grad_()
    optimiser = torch.optim.Adam([parameters], lr=settings.learning_rate)
    with torch.enable_grad():
        for _ in range(settings.iterations):
            fitted = F.avg_pool3d(F.avg_pool3d(parameters, 3, 1, 1), 3, 1, 1)
            likelihood = _read(probabilities, fitted / unit).mean()
            roughness = sum(fitted.diff(dim=axis).square().mean() for axis in (2, 3, 4))
            optimiser.zero_grad()
            (settings.smoothness * roughness - likelihood).backward()
            optimiser.step()
    return (fitted / unit).detach()


def _read(probabilities: Tensor, displacement: Tensor) -> Tensor:
    """Each control point's probability at a displacement in label steps; 0 beyond the labels."""
    width = round(probabilities.shape[1] ** (1 / 3))
    cubes = probabilities[0].flatten(1).T.reshape(-1, 1, width, width, width)
    positions = displacement[0].flatten(1).T.flip(1) / (width // 2)
    return F.grid_sample(cubes, positions.view(-1, 1, 1, 1, 3), align_corners=True)


@operator("triton_reg::instance_fit")
def _instance_fit(
    probabilities: Tensor,
    mean: Tensor,
    label_step: Sequence[float],
    iterations: int,
    learning_rate: float,
    smoothness: float,
) -> Tensor:
    settings = _settings(iterations, learning_rate, smoothness)
    from triton_reg.ops._cpu import instance_fit as cpu

    return torch.from_numpy(
        cpu.instance_fit(array(probabilities), array(mean), _vector(label_step), settings)
    )


@_instance_fit.register_kernel("cuda")
def _instance_fit_cuda(
    probabilities: Tensor,
    mean: Tensor,
    label_step: Sequence[float],
    iterations: int,
    learning_rate: float,
    smoothness: float,
) -> Tensor:
    settings = _settings(iterations, learning_rate, smoothness)
    from triton_reg.ops._triton import instance_fit as gpu

    with torch.cuda.device_of(mean):
        return gpu.instance_fit(probabilities, mean, _vector(label_step), settings)


@_instance_fit.register_fake
def _(probabilities: Tensor, mean: Tensor, *settings: object) -> Tensor:
    del probabilities, settings
    return mean.new_empty(mean.shape)


def _settings(iterations: int, learning_rate: float, smoothness: float) -> FitSettings:
    return FitSettings(iterations=iterations, learning_rate=learning_rate, smoothness=smoothness)


def _vector(values: Sequence[float]) -> Vector:
    first, second, third = values
    return first, second, third
