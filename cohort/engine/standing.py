"""How far each subject stands apart from the others in one measure."""

from dataclasses import dataclass

import numpy as np

APART = 3.5  # robust standard deviations
_MAD_TO_SD = 1.4826
FEW = 10  # subjects; of fewer, half may be alike by chance, and then their MAD is next to nothing
# of the typical value, among few: of more the MAD can be trusted, and a little damage shows in less
_LEAST_SPREAD = 0.03
_SAME = 1e-9  # spreads below are the rounding of equal values


@dataclass(frozen=True, eq=False)
class Standing:
    """One measure of every subject, and how it compares.

    Attributes:
        values: float64 ``[N]``, finite.
        typical: their median.
        spread: a robust standard deviation, 1.4826 times their median absolute deviation; among
            fewer than ten subjects at least 3 % of what is typical, so that nobody stands apart by
            less than a tenth of it.
        bad: 1 if large is bad, -1 if small is.
    """

    values: np.ndarray
    typical: float
    spread: float
    bad: int

    @classmethod
    def of(cls, values: np.ndarray, bad: int) -> "Standing | None":
        """None where subjects do not differ."""
        typical = float(np.median(values))
        spread = _MAD_TO_SD * float(np.median(np.abs(values - typical)))
        if spread <= _SAME:
            return None
        least = _LEAST_SPREAD * abs(typical) if len(values) < FEW else 0.0
        return cls(values, typical, max(spread, least), bad)

    @property
    def distances(self) -> np.ndarray:
        """To the bad side ``[N]``, in robust standard deviations; apart is beyond 3.5."""
        return self.bad * (self.values - self.typical) / self.spread
