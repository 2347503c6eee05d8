"""Whether PDD-Net's kernels and their plain-torch definitions agree on the same device.

Kernels may be off from the definition in float64 by four times what the definition in float32 is
off by, and by a few roundings of the largest value.
"""

import torch
from torch import Tensor

from triton_reg.ops._triton.dense_match import dense_match
from triton_reg.ops._triton.instance_fit import instance_fit
from triton_reg.ops.dense_match import DenseMatch, dense_match_reference
from triton_reg.ops.instance_fit import FitSettings, instance_fit_reference
from triton_reg.ops.lattice import Lattice, Vector
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.resize import Shape, resize_reference

REACH: Vector = (0.25, 0.3, 0.35)
# of a fit, in label steps: Adam divides by roots of squares that rounding may make of nothing
FIT_BOUNDS = (1e-4, 1e-2)  # mean and largest
SETTINGS = {
    "cost alone": MatchSettings(iterations=0),
    "pooled": MatchSettings(),
    "exact": MatchSettings(smoothing="exact_min_convolution", curvature=0.3, iterations=3),
    "mean field": MatchSettings(smoothing="mean_field"),
    "gaussian": MatchSettings(smoothing="gaussian", sigma=1.7),
}


def features(shape: Shape, channels: int, pairs: int, seed: int, device: torch.device) -> Tensor:
    """Smooth random features ``[B, C, d, h, w]``."""
    generator = torch.Generator().manual_seed(seed)
    knots = (max(2, size // 4) for size in shape)
    return resize_reference(
        torch.rand(pairs, channels, *knots, generator=generator).to(device), shape
    )


def sides(
    shape: Shape, points: Shape, channels: int, pairs: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features at control points, and those that they are looked for in."""
    fixed, moving = (features(shape, channels, pairs, seed, device) for seed in (1, 2))
    return resize_reference(fixed, points).contiguous(), moving


def check_match(
    name: str, shape: Shape, points: Shape, width: int, channels: int, device: torch.device
) -> str:
    """Raise ``AssertionError`` unless a match of two pairs, with anchors, is its definition."""
    lattice = Lattice.corner_aligned(shape, points, width, REACH)
    fixed, moving = sides(shape, points, channels, 2, device)
    weights = torch.tensor([3.0, 0.7, 0.9, 1.1], device=device)
    anchors = features(points, 4, 2, 3, device)
    found = dense_match(fixed, moving, weights, anchors, lattice, SETTINGS[name], True)

    def definition(dtype: torch.dtype) -> DenseMatch:
        given = (one.to(dtype) for one in (fixed, moving, weights))
        near = anchors.to(dtype)
        return dense_match_reference(
            *given, lattice=lattice, settings=SETTINGS[name], anchors=near, keep_probabilities=True
        )

    rounded, truth = definition(torch.float32), definition(torch.float64)
    said = []
    for field, one, own, exact in zip(DenseMatch._fields, found, rounded, truth, strict=True):
        error, own_error = ((a.double() - exact).abs().max().item() for a in (one, own))
        epsilon = torch.finfo(torch.float32).eps * exact.abs().max().item()
        assert error <= 4 * own_error + 32 * epsilon, f"{name}, {field}: {error} > {own_error}"
        said.append(f"{field} {error:.1e} ({own_error:.1e})")
    return f"{name}, {points} x {width}: {', '.join(said)}"


def check_batch(name: str, shape: Shape, points: Shape, device: torch.device) -> str:
    """Raise ``AssertionError`` unless a pair has the same bits alone and in a batch, twice."""
    lattice = Lattice.corner_aligned(shape, points, 5, REACH)
    fixed, moving = sides(shape, points, 3, 3, device)
    weights = torch.tensor([3.0, 0.7, 0.9, 1.1], device=device)

    def match(pairs: slice) -> tuple[Tensor, ...]:
        given = fixed[pairs].clone(), moving[pairs].clone()
        return dense_match(*given, weights, None, lattice, SETTINGS[name], True)

    together, again, alone = match(slice(None)), match(slice(None)), match(slice(1, 2))
    for whole, repeated, one in zip(together, again, alone, strict=True):
        assert torch.equal(whole, repeated), f"{name}: another run has other bits"
        assert torch.equal(whole[1:2], one), f"{name}: a pair alone has other bits"
    return f"{name}: the same bits alone, in a batch and again"


def check_fit(
    points: Shape, width: int, iterations: int, device: torch.device, graphs: bool | None = None
) -> str:
    """Raise ``AssertionError`` unless a fit of two pairs is its definition, twice the same."""
    likely = (12 * features(points, width**3, 2, 4, device)).softmax(1)
    steps = torch.arange(width, device=device, dtype=torch.float32) - width // 2
    labels = torch.cartesian_prod(steps, steps, steps)
    mean = torch.einsum("blzyx,la->bazyx", likely, labels).contiguous()
    settings, unit = FitSettings(iterations=iterations), (0.05, 0.06, 0.07)
    found = instance_fit(likely, mean, unit, settings, graphs=graphs)
    assert torch.equal(found, instance_fit(likely, mean, unit, settings, graphs=graphs))
    alone = instance_fit(likely[1:].clone(), mean[1:].clone(), unit, settings, graphs=graphs)
    assert torch.equal(found[1:], alone), "fit: a pair alone has other bits"
    truth = instance_fit_reference(likely.double(), mean.double(), unit, settings)
    error = (found.double() - truth).abs()
    bounds = zip((error.mean(), error.max()), FIT_BOUNDS, strict=True)
    said = f"fit, {points} x {width}, {iterations} steps: off by {error.mean():.1e} label steps"
    assert all(one <= bound for one, bound in bounds), said
    return f"{said}, {error.max():.1e} at most"
