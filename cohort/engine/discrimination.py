"""Feature extractors compared on a cohort without registering it: the entropy of their matches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from cohort.data.one_thread import one_thread
from cohort.data.store import CohortStore
from cohort.engine.results import read_rows
from cohort.engine.scan import Scan
from cohort.engine.spec import RunSpec
from cohort.errors import UsageError
from triton_reg import FeatureExtractor
from triton_reg.metrics.discrimination import shift_entropy

BINS = 50
_FEWEST_PAIRS = 3  # that a correlation is taken over


class Comparison:
    """What is known so far of each extractor: a row a subject, a histogram and a map.

    Attributes:
        rows: extractor, subject, and mean, median, p10 and p90 of the entropy inside.
        shares: extractor -> shares of voxels in ``BINS`` bins from 0 to 1, summed over subjects.
        maps: extractor -> entropy of the first subject ``[D, H, W]``.
        volume: the first subject ``[D, H, W]``.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, str | float]] = []
        self.shares: dict[str, np.ndarray] = {}
        self.maps: dict[str, np.ndarray] = {}
        self.volume: np.ndarray | None = None

    def add(self, extractor: str, subject_id: str, entropy: np.ndarray, inside: np.ndarray) -> None:
        """Take in one subject's entropy ``[D, H, W]``, judged where ``inside`` is true."""
        values = entropy[inside]
        p10, median, p90 = np.percentile(values, (10, 50, 90)).tolist()
        self.rows.append({
            "extractor": extractor,
            "subject": subject_id,
            "mean": float(values.mean(dtype=np.float64)),
            "p10": p10,
            "median": median,
            "p90": p90,
        })  # fmt: skip
        counts, _ = np.histogram(values, BINS, (0, 1))
        share = counts / counts.sum()
        self.shares[extractor] = self.shares.get(extractor, 0) + share
        self.maps.setdefault(extractor, entropy)

    @property
    def subjects(self) -> pl.DataFrame:
        """All rows as a table."""
        return pl.DataFrame(self.rows)

    @property
    def ranking(self) -> pl.DataFrame:
        """Mean over the subjects for each extractor, the most telling first."""
        measures = pl.col("mean", "p10", "median", "p90").mean()
        return self.subjects.group_by("extractor").agg(measures).sort("mean")

    @property
    def histograms(self) -> pl.DataFrame:
        """Share of the voxels by bin of entropy, the mean over subjects."""
        edges = np.linspace(0, 1, BINS + 1)
        frames = [
            pl.DataFrame({"from": edges[:-1], "to": edges[1:], "share": share / share.sum()})
            .with_columns(extractor=pl.lit(name))
            .select("extractor", "from", "to", "share")
            for name, share in self.shares.items()
        ]
        return pl.concat(frames)


def compare_features(
    store: CohortStore,
    extractors: dict[str, FeatureExtractor],
    subject_ids: list[str],
    progress: Callable[[int, int], None],
) -> Comparison:
    """Entropy of each extractor on each subject.

    Entropy is judged inside a subject's labels where it has labels, inside its mask elsewhere.

    Raises:
        SubjectError: if a subject cannot be read.
    """
    comparison = Comparison()
    with one_thread(), torch.inference_mode():
        for done, subject_id in enumerate(subject_ids, start=1):
            scan = Scan.of(store.read(subject_id))
            region = scan.mask if scan.labels is None else scan.labels
            inside = (region[0, 0] > 0).numpy()
            if comparison.volume is None:
                comparison.volume = scan.volume[0, 0].numpy()
            for name, extractor in extractors.items():
                entropy = shift_entropy(extractor(scan.volume, scan.mask))[0]
                comparison.add(name, subject_id, entropy.numpy(), inside)
            progress(done, len(subject_ids))
    return comparison


def spread(subject_ids: list[str], count: int) -> list[str]:
    """``count`` of the subjects, evenly spread over their order; all if there are fewer."""
    if count >= len(subject_ids):
        return subject_ids
    places = np.linspace(0, len(subject_ids) - 1, count).round().astype(int)
    return [subject_ids[place] for place in places]


def overlap_of_run(run_dir: Path, store: CohortStore, entropy: pl.DataFrame) -> dict[str, float]:
    """How a run's overlap goes with its extractor's entropy, over pairs of the compared subjects.

    Args:
        run_dir: a run on this store.
        entropy: the rows of :attr:`Comparison.subjects` of the run's own extractor.

    Returns:
        ``pairs``, ``dice_mean``, and ``spearman``, the rank correlation of a pair's Dice with the
        mean entropy of its two subjects; negative where telling features overlap better.

    Raises:
        UsageError: ``E_RUN`` if the run is of another store or has too few of these pairs.
    """
    spec = RunSpec.load(run_dir)
    known = dict(zip(spec.subject_ids, spec.subject_digests, strict=True))
    if any(known.get(one) != store.subject_digest(one) for one in entropy["subject"]):
        raise UsageError("E_RUN", f"{run_dir} is not a run on {store.where} as it is now")
    means = entropy.select("subject", "mean")
    rows = read_rows(run_dir, ("status", "dice_mean"))
    rows = rows.filter(pl.col("status") == "ok", pl.col("dice_mean").is_not_null())
    pairs = rows.select("fixed", "moving", "dice_mean")
    pairs = pairs.join(means.rename({"subject": "fixed", "mean": "fixed_entropy"}), on="fixed")
    pairs = pairs.join(means.rename({"subject": "moving", "mean": "moving_entropy"}), on="moving")
    if len(pairs) < _FEWEST_PAIRS:
        message = f"{run_dir} has {len(pairs)} pairs of the compared subjects with labels"
        raise UsageError("E_RUN", f"{message}; a correlation needs at least {_FEWEST_PAIRS}")
    both = (pl.col("fixed_entropy") + pl.col("moving_entropy")) / 2
    spearman = pairs.select(pl.corr("dice_mean", both, method="spearman")).item()
    mean = pairs["dice_mean"].mean()
    assert isinstance(mean, float)
    return {"pairs": float(len(pairs)), "dice_mean": mean, "spearman": float(spearman)}
