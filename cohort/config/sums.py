"""What a run is asked to add up over its pairs."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt

WEIGHT_UNIT = 256  # a subject that counts once
Normalise = Literal["range", "none"]


class SumSettings(BaseModel):
    """Of a run whose pairs have one fixed subject, a template.

    Attributes:
        normalise: ``range`` maps each moving subject's 1st and 99th percentile (inside its mask) to
            0 and 1 before it is added; ``none`` leaves calibrated units, such as CT's, alone.
        bins: of the histogram at every voxel that robust means need; 0 for none.
        weights: of subjects that do not count once, in 256ths.
        detail: whether labels and the change of volume are kept too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    normalise: Normalise = "range"
    bins: NonNegativeInt = 0
    weights: Mapping[str, NonNegativeInt] = {}
    detail: bool = False

    def weight_of(self, subject_id: str) -> int:
        """In 256ths."""
        return self.weights.get(subject_id, WEIGHT_UNIT)
