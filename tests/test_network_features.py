"""Features of a user's own network: what is checked, what is frozen, what `repr` tells apart."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor, nn

from triton_reg import NetworkFeatures, SoftVoxelOpt, VoxelOpt, register_pair

# of making such files; that of reading one is for the reader to keep quiet about
pytestmark = pytest.mark.filterwarnings(r"ignore:.torch\.jit\.(script|save). is:DeprecationWarning")
SHAPE = (16, 17, 18)


class Scaled(nn.Module):
    """A convolution and what hangs on attributes and buffers, not on weights alone."""

    def __init__(self, scale: float = 1.0, bias: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv3d(1, 3, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm3d(3)
        self.scale = scale

    def forward(self, volume: Tensor) -> Tensor:
        return self.scale * torch.sigmoid(self.norm(self.conv(volume)))


def volumes(n: int = 2) -> Tensor:
    return torch.cat([100 * smooth_volume(SHAPE, seed) for seed in range(n)])


def features_of(network: nn.Module, **settings: object) -> Tensor:
    extractor = NetworkFeatures(network=network, **settings)  # type: ignore[arg-type]
    return extractor(volumes(), torch.ones_like(volumes()))


def test_voxelopt_registers_with_it() -> None:
    fixed, moving = volumes()[:, 0]
    method = VoxelOpt(features=NetworkFeatures(network=Scaled()), levels=2)
    vectors = register_pair(method, fixed, moving).displacement.vectors
    assert vectors.shape == (1, 3, *SHAPE)
    assert vectors.abs().max() > 0
    assert not vectors.requires_grad


def test_features_do_not_depend_on_batch_mates() -> None:
    for training in (True, False):
        extractor = NetworkFeatures(network=Scaled().train(training), trainable=True)
        together = extractor(volumes(), torch.ones_like(volumes()))
        alone = [extractor(one, torch.ones_like(one)) for one in volumes().split(1)]
        assert torch.equal(together, torch.cat(alone))


def test_a_network_is_used_in_evaluation_mode_and_left_in_its_own() -> None:
    network = Scaled().train()
    before = copy.deepcopy(network.state_dict())
    torch.testing.assert_close(features_of(network), features_of(copy.deepcopy(network).eval()))
    assert network.training
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_copy_stays_what_it_was() -> None:
    network = Scaled()
    extractor = NetworkFeatures(network=network)
    shown, made = repr(extractor), extractor(volumes(), torch.ones_like(volumes()))
    with torch.no_grad():
        network.conv.weight += 1
    assert repr(extractor) == shown
    assert torch.equal(extractor(volumes(), torch.ones_like(volumes())), made)
    assert repr(NetworkFeatures(network=network)) != shown
    assert repr(replace(extractor, network=network)) != shown


def test_a_trainable_network_is_the_network_itself() -> None:
    network = Scaled()
    extractor = NetworkFeatures(network=network, trainable=True)
    method = SoftVoxelOpt(voxelopt=VoxelOpt(features=extractor, levels=2, solves=(1,)))
    before = method.fingerprint
    features = method.prepare(volumes(), torch.ones_like(volumes()))
    pair = torch.tensor([[0, 1]], dtype=torch.int32)
    method.register(features, features, pair).displacement.vectors.square().sum().backward()
    assert network.conv.weight.grad is not None
    assert network.conv.weight.grad.abs().max() > 0
    with torch.no_grad():
        network.conv.weight -= network.conv.weight.grad
        assert not extractor(volumes(), torch.ones_like(volumes())).requires_grad
    assert method.fingerprint != before


def test_what_changes_features_changes_what_is_shown() -> None:
    def changed(change: Callable[[Scaled], object]) -> Scaled:
        network = Scaled()
        with torch.no_grad():
            change(network)
        return network

    networks = [
        Scaled(),
        Scaled(scale=2.0),
        Scaled(bias=False),
        changed(lambda one: one.conv.weight[0].mul_(2)),
        changed(lambda one: one.norm.running_mean.add_(1)),  # type: ignore[union-attr]
        nn.Sequential(Scaled()),
    ]
    prints = {VoxelOpt(features=NetworkFeatures(network=one)).fingerprint for one in networks}
    prints.add(VoxelOpt(features=NetworkFeatures(network=Scaled(), window=(2, 98))).fingerprint)
    assert len(prints) == len(networks) + 1
    same = (Scaled(), Scaled().eval(), copy.deepcopy(Scaled()))
    assert len({repr(NetworkFeatures(network=one)) for one in same}) == 1


def test_features_are_zero_outside_the_mask() -> None:
    mask = torch.zeros_like(volumes())
    mask[..., 4:-4, 4:-4, 4:-4] = 1
    features = NetworkFeatures(network=Scaled())(volumes(), mask)
    assert features[mask.expand_as(features) == 0].eq(0).all()
    assert features[mask.expand_as(features) > 0].ne(0).all()


class Returning(nn.Module):
    """A network that returns what a function makes of its input."""

    def __init__(self, made: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.made = made

    def forward(self, volume: Tensor) -> object:
        return self.made(volume)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (
            lambda v: v[..., :-1],
            ValueError,
            r"\[1, C, 16, 17, 18\], got \[1, 1, 16, 17, 17\]",
        ),
        (lambda v: v[0], ValueError, r"got \[1, 16, 17, 18\]"),
        (lambda v: torch.cat([v, v]), ValueError, r"got \[2, 1, 16, 17, 18\]"),
        (lambda v: v / 0, ValueError, "NaN or infinite"),
        (lambda v: [v], TypeError, "must return a floating tensor, got list"),
        (lambda v: v.int(), TypeError, r"got torch\.int32"),
    ],
)
def test_what_is_no_features_is_refused(made, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        features_of(Returning(made))


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
        NetworkFeatures(network=lambda volume: volume)  # type: ignore[arg-type]


def test_a_torchscript_file_gives_the_features_of_its_network(tmp_path: Path) -> None:
    file = tmp_path / "network.pt"
    torch.jit.script(Scaled()).save(file)
    extractor = NetworkFeatures.load_torchscript(file, window=(2, 98))
    made = extractor(volumes(), torch.ones_like(volumes()))
    torch.testing.assert_close(made, features_of(Scaled(), window=(2, 98)))
    assert hashlib.sha256(file.read_bytes()).hexdigest() in repr(extractor)
    with torch.inference_mode():
        assert torch.equal(extractor(volumes(), torch.ones_like(volumes())), made)


def test_scripted_networks_are_told_apart_by_their_code(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            return 2 * volume

    class Thrice(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            return 3 * volume

    Thrice.__name__ = Thrice.__qualname__ = "Twice"
    shown = {repr(NetworkFeatures(network=torch.jit.script(one))) for one in (Twice(), Thrice())}
    assert len(shown) == 2


@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04"])
def test_a_file_that_is_no_torchscript_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "network.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"network\.pt is no TorchScript file: \w+"):
        NetworkFeatures.load_torchscript(file)
    with pytest.raises(FileNotFoundError):
        NetworkFeatures.load_torchscript(tmp_path / "nowhere.pt")
