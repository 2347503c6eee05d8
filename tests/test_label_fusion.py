"""Votes of atlases: by hand, against the references, and what is refused."""

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg.ops.joint_weights import joint_weights, joint_weights_reference
from triton_reg.ops.label_fusion import (
    FusionSettings,
    disputed_voxels,
    fuse_labels,
    local_weights,
    weighted_vote,
)
from triton_reg.ops.match_patches import match_patches, match_patches_reference

SHAPE = (9, 8, 11)
EPS = torch.finfo(torch.float32).eps


def scans(count: int, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """A target ``[1, 1, D, H, W]`` and atlases ``[1, N, D, H, W]`` that differ from it by noise."""
    target = smooth_volume(SHAPE, 0)
    others = [smooth_volume(SHAPE, seed) for seed in range(1, count + 1)]
    return 100 * target, 100 * torch.cat([target + noise * one for one in others], dim=1)


def every_voxel() -> Tensor:
    return torch.arange(SHAPE[0] * SHAPE[1] * SHAPE[2])


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("search", [0, 1, 2])
def test_matching_is_as_accurate_as_the_reference(radius: int, search: int) -> None:
    target, warped = scans(3)
    voxels = every_voxel()[::7]
    exact = match_patches_reference(target.double(), warped.double(), voxels, radius, search)
    plain = match_patches_reference(target, warped, voxels, radius, search)
    found = match_patches(target, warped, voxels, radius=radius, search=search)
    own = (plain.correlations - exact.correlations).abs().max()
    error = (found.correlations - exact.correlations).abs().max()
    # variances are sums of squares less the square of the mean: a few roundings of the volume's own
    assert error <= 2 * own + 200 * EPS
    assert (found.positions == exact.positions).float().mean() > 0.99
    if not search:
        assert torch.equal(found.positions, voxels[:, None].expand(-1, 3))


def test_the_search_finds_where_a_patch_has_gone() -> None:
    target = smooth_volume(SHAPE, 3)
    moved = torch.roll(target, (1, 0, -1), dims=(2, 3, 4))
    voxels = every_voxel().view(SHAPE)[3:6, 3:5, 3:7].flatten()
    found = match_patches(target, moved, voxels, radius=2, search=1)
    step = SHAPE[1] * SHAPE[2] - 1
    assert torch.equal(found.positions[:, 0], voxels + step)
    assert found.correlations.min() > 1 - 1e-4
    still = match_patches(target, moved, voxels, radius=2, search=0)
    assert (still.correlations < found.correlations).all()


def test_a_flat_patch_is_like_nothing_and_stays_where_it_is() -> None:
    target, warped = scans(2)
    warped[:, 1] = 5.0
    voxels = every_voxel()
    found = match_patches(target, warped, voxels, radius=1, search=1)
    assert (found.correlations[:, 1] == 0).all()
    assert torch.equal(found.positions[:, 1], voxels)


@pytest.mark.parametrize("beta", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_joint_weights_are_as_accurate_as_the_reference(count: int, beta: int) -> None:
    target, warped = scans(count)
    voxels = every_voxel()[::5]
    positions = match_patches(target, warped, voxels, search=1).positions
    given = 2, 0.1, beta
    exact = joint_weights_reference(target.double(), warped.double(), voxels, positions, *given)
    own = (joint_weights_reference(target, warped, voxels, positions, *given) - exact).abs().max()
    found = joint_weights(target, warped, voxels, positions, radius=2, alpha=0.1, beta=beta)
    assert (found - exact).abs().max() <= 2 * (own + 10 * EPS * exact.abs().max())
    torch.testing.assert_close(found.sum(1), torch.ones(len(voxels)))


def test_two_copies_of_an_atlas_count_as_one() -> None:
    target, warped = scans(2)
    voxels = every_voxel()
    same = voxels[:, None].expand(-1, 3)
    twice = torch.cat([warped, warped[:, 1:]], dim=1)
    settings = {"alpha": 1e-6, "beta": 1}
    alone = joint_weights(target, warped, voxels, same[:, :2], **settings)
    found = joint_weights(target, twice, voxels, same, **settings)
    assert (found[:, 1] - found[:, 2]).abs().max() < 1e-3
    assert (found[:, 1] + found[:, 2] - alone[:, 1]).abs().median() < 1e-3


def test_the_weights_of_two_atlases_by_hand() -> None:
    target, warped = scans(2)
    voxel = torch.tensor([4 * 88 + 4 * 11 + 5])

    def patch(volume: Tensor) -> Tensor:
        cut = volume[3:6, 3:6, 4:7].double().flatten()
        return (cut - cut.mean()) / cut.std(correction=0)

    errors = [(patch(target[0, 0]) - patch(one)).abs() for one in warped[0]]
    (a, b), (c, d) = ([(one * other).mean() ** 2 for other in errors] for one in errors)
    raw = torch.stack([d + 0.1 - b, a + 0.1 - c])  # the adjugate times ones
    found = joint_weights(target, warped, voxel, voxel.view(1, 1).expand(1, 2), radius=1, alpha=0.1)
    torch.testing.assert_close(found[0].double(), raw / raw.sum(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", ["majority", "local", "joint"])
def test_two_right_atlases_outvote_a_wrong_one(rule: str) -> None:
    target, warped = scans(3, noise=0.01)
    warped[:, 2] = 100 * smooth_volume(SHAPE, 9)[:, 0]
    truth = (target > 50).int()
    labels = torch.cat([truth, truth, 1 - truth], dim=1)
    settings = FusionSettings(rule, radius=1, search=0)  # type: ignore[arg-type]
    fused = fuse_labels(target, warped, labels, settings)
    assert torch.equal(fused.labels, truth)
    assert fused.confidence.min() > 0.5
    assert fused.confidence.max() <= 1


@pytest.mark.parametrize("rule", ["local", "joint"])
def test_one_atlas_that_looks_right_outvotes_two_that_do_not(rule: str) -> None:
    target, warped = scans(3, noise=1e-3)
    for wrong in (1, 2):
        warped[:, wrong] = 100 * smooth_volume(SHAPE, 8 + wrong)[:, 0]
    truth = (target > 50).int()
    labels = torch.cat([truth, 1 - truth, 1 - truth], dim=1)
    settings = FusionSettings(rule, radius=1, search=0, alpha=0.01, power=8.0)  # type: ignore[arg-type]
    fused = fuse_labels(target, warped, labels, settings)
    assert (fused.labels == truth).float().mean() > 0.95
    majority = fuse_labels(target, warped, labels, FusionSettings("majority"))
    assert (majority.labels != truth).all()


@pytest.mark.parametrize("count", [2, 6, 7])
def test_a_tie_goes_to_the_first_atlas(count: int) -> None:
    target, warped = scans(count)
    # as many votes for 7 as for 3, which comes later
    row = [7, 3] * (count // 2) + [1] * (count % 2)
    labels = torch.tensor(row, dtype=torch.int32).view(1, -1, 1, 1, 1).expand_as(warped)
    fused = fuse_labels(target, warped, labels, FusionSettings("majority"))
    assert (fused.labels == 7).all()
    torch.testing.assert_close(fused.confidence[0, 0, 0, 0, 0], torch.tensor((count // 2) / count))


def test_votes_are_summed_by_label() -> None:
    voted = torch.tensor([[4, 9, 9], [4, 9, 9], [5, 5, 2]])
    weights = torch.tensor([[0.4, 0.3, 0.3], [0.7, 0.5, -0.2], [0.9, 0.4, -0.3]])
    winners, shares = weighted_vote(voted, weights)
    assert winners.tolist() == [9, 4, 5]
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.7, 1.0]))


def test_local_weights_sum_to_one() -> None:
    found = local_weights(torch.tensor([[0.5, 1.0, -0.9], [-0.1, -1.0, 0.0]]), 2.0)
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.8, 0.0], [1 / 3, 1 / 3, 1 / 3]]))


def test_where_atlases_agree_nothing_is_asked() -> None:
    labels = torch.zeros(1, 2, *SHAPE, dtype=torch.int32)
    assert not len(disputed_voxels(labels, 1))
    labels[0, 1, 4, 4, 5] = 3
    assert disputed_voxels(labels, 0).tolist() == [4 * 88 + 4 * 11 + 5]
    assert len(disputed_voxels(labels, 1)) == 27
    target, warped = scans(2)
    same = torch.full_like(warped, 6, dtype=torch.int32)
    fused = fuse_labels(target, warped, same)
    assert (fused.labels == 6).all()
    assert (fused.confidence == 1).all()


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
def test_the_operators_pass_torchs_own_checks() -> None:
    target, warped = scans(2)
    voxels = every_voxel()[:20]
    torch.library.opcheck(
        torch.ops.triton_reg.match_patches.default, (target, warped, voxels, 1, 1)
    )
    positions = voxels[:, None].repeat(1, 2)
    torch.library.opcheck(
        torch.ops.triton_reg.joint_weights.default, (target, warped, voxels, positions, 1, 0.1, 2)
    )


def test_messages_say_what_was_got() -> None:
    target, warped = scans(2)
    voxels = every_voxel()
    with pytest.raises(
        ValueError, match=r"one grid, got \[1, 1, 9, 8, 11\] and \[1, 2, 8, 8, 11\]"
    ):
        match_patches(target, warped[:, :, 1:], voxels)
    with pytest.raises(TypeError, match=r"voxels must be \[V\] int64, got .*int32"):
        match_patches(target, warped, voxels.int())
    with pytest.raises(ValueError, match="got 0 and 1"):
        match_patches(target, warped, voxels, radius=0, search=1)
    with pytest.raises(ValueError, match=r"positions must be \[792, 2\], got \[792, 3\]"):
        joint_weights(target, warped, voxels, voxels[:, None].expand(-1, 3))
    with pytest.raises(ValueError, match="alpha above 0, got radius 2, beta 2, alpha 0"):
        joint_weights(target, warped, voxels, voxels[:, None].expand(-1, 2), alpha=0)
    with pytest.raises(ValueError, match=r"shape of warped, \[1, 2, .*, got \[1, 1, "):
        fuse_labels(target, warped, torch.zeros_like(target, dtype=torch.int32))
    with pytest.raises(ValueError, match="rule is 'best'; need majority, local or joint"):
        FusionSettings("best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="search must be at least 0, got -1"):
        FusionSettings(search=-1)
    with pytest.raises(ValueError, match="power must be above 0, got 0"):
        FusionSettings(power=0)
