"""How far each subject stands apart from the others in one measure."""

from dataclasses import dataclass

import numpy as np

APART = 3.5  # robust standard deviations
_MAD_TO_SD = 1.4826
FEW = 10  # subjects; of fewer, half may be alike by chance, and then their MAD is next to nothing
# The least robust SD of a measure among few, as a share of its typical value: none of them stands
# apart by less than 3.5 times this, a tenth of what is typical. Among more the MAD can be trusted,
# and brains that are damaged a little differ by less.
_LEAST_SPREAD = 0.03


@dataclass(frozen=True, eq=False)
class Standing:
    """One measure of every subject, and how it compares.

    Attributes:
        values: float64 ``[N]``, finite.
        typical: their median.
        spread: 1.4826 times their median absolute deviation, a robust standard deviation.
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
        return cls(values, typical, spread, bad) if spread > 1e-9 else None

    @property
    def distances(self) -> np.ndarray:
        """To the bad side ``[N]``, in robust standard deviations."""
        return self._to_bad_side(self.spread)

    @property
    def judged(self) -> np.ndarray:
        """What decides, ``[N]``: apart is beyond 3.5. Among fewer than ten subjects the deviations
        have a floor, by which nobody stands apart by less than a tenth of what is typical."""
        least = _LEAST_SPREAD * abs(self.typical) if len(self.values) < FEW else 0.0
        return self._to_bad_side(max(self.spread, least))

    def _to_bad_side(self, spread: float) -> np.ndarray:
        return self.bad * (self.values - self.typical) / spread
