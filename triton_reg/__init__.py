"""Registration of 3D medical volumes as tensors: operations, features, methods and measures."""

from triton_reg.affine.placed import PlacedVolume
from triton_reg.affine.register import AffineResult, AffineSettings, register_affine
from triton_reg.displacement import Displacement
from triton_reg.features.architecture import Architecture
from triton_reg.features.intensity import Intensity
from triton_reg.features.learned import LearnedFeatures
from triton_reg.features.local import LocalContrast
from triton_reg.features.mind import MindSSC
from triton_reg.features.network import NetworkFeatures
from triton_reg.features.obelisk import Obelisk
from triton_reg.features.pretrained import Pretrained
from triton_reg.features.unet import SegmentationUNet
from triton_reg.method import (
    FeatureExtractor,
    Features,
    Method,
    Prompts,
    Result,
    collate,
    register_pair,
)
from triton_reg.methods.descent import StopRule
from triton_reg.methods.dio import DIO
from triton_reg.methods.dio_settings import DescentSettings
from triton_reg.methods.pdd_net import PDDNet
from triton_reg.methods.prompt_terms import PromptWeights
from triton_reg.methods.regularisers import Regularisers
from triton_reg.methods.search import CubeSearch, EvenSearch
from triton_reg.methods.voxelopt import VoxelOpt
from triton_reg.methods.voxelopt_soft import SoftVoxelOpt
from triton_reg.ops.instance_fit import FitSettings
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.match_settings import MatchSettings

__version__ = "0.1.0"
__all__ = [
    "DIO",
    "AffineResult",
    "AffineSettings",
    "Architecture",
    "CubeSearch",
    "DescentSettings",
    "Displacement",
    "EvenSearch",
    "FeatureExtractor",
    "Features",
    "FitSettings",
    "Intensity",
    "LearnedFeatures",
    "LevelSettings",
    "LocalContrast",
    "MatchSettings",
    "Method",
    "MindSSC",
    "NetworkFeatures",
    "Obelisk",
    "PDDNet",
    "PlacedVolume",
    "Pretrained",
    "PromptWeights",
    "Prompts",
    "Regularisers",
    "Result",
    "SegmentationUNet",
    "SoftVoxelOpt",
    "StopRule",
    "VoxelOpt",
    "collate",
    "register_affine",
    "register_pair",
]
