"""What the records of a store say together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.data.geometry import Grid
from cohort.data.layout import digest_of
from cohort.errors import SubjectError

# in the place of the digest of what cannot be read
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Inventory:
    """What the records of a store say together.

    digest: sha256 over the grid and every subject's name and content. has_labels, has_masks,
    has_truth: whether any subject has labels, a mask, or a known displacement to the template.
    unlabelled: whose records can be read and tell of no labels.
    unreadable: why a record cannot be read, by subject.
    """

    subject_digests: dict[str, str]
    digest: str
    has_labels: bool
    has_masks: bool
    has_truth: bool
    unlabelled: tuple[str, ...]
    unreadable: dict[str, SubjectError]

    @classmethod
    def of(
        cls,
        grid: Grid,
        found: Mapping[str, dict[str, Any] | SubjectError],
        planned: Mapping[str, str],
    ) -> "Inventory":
        """From what records say of arrays, or why there is none, by sorted subject id.

        planned: digests that stand for those of records that cannot be read.
        """
        arrays = {name: one for name, one in found.items() if isinstance(one, dict)}
        unreadable = {name: one for name, one in found.items() if not isinstance(one, dict)}
        digests = {
            name: digest_of(arrays[name]) if name in arrays else planned.get(name, UNREADABLE)
            for name in found
        }
        return cls(
            digests,
            digest_of({"grid": grid.to_json(), "subjects": list(digests.items())}),
            any("labels" in described for described in arrays.values()),
            any("mask" in described for described in arrays.values()),
            any("to_template" in described for described in arrays.values()),
            tuple(name for name, described in arrays.items() if "labels" not in described),
            unreadable,
        )
