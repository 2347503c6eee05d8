"""What ``apply`` and ``export`` say of what they wrote."""

from cohort.studies.apply import Applied
from cohort.studies.export import Exported
from cohort.terminal import say_table


def say_applied(applied: Applied) -> None:
    """Where a result is, what was done, and the volumes of its structures."""
    rows = {"done": applied.direction, **_residual_row(applied.residual_voxels)}
    rows |= {
        f"{one['label']} {one['name'] or ''}".strip(): f"{one['volume_mm3']:,.0f} mm³"
        for one in applied.volumes.iter_rows(named=True)
    }
    say_table(str(applied.out), rows)


def say_exported(exported: Exported) -> None:
    """What was written, what it does, and how exact it is."""
    facts = exported.facts
    rows = {"done": facts["direction"], **_residual_row(facts["inverse_residual_voxels"])}
    if "between_voxels" in facts:
        between = facts["between_voxels"]
        rows["field"] = (
            f"between its voxels at most {between['largest_mm']:.3f} mm from the transform, "
            f"{between['mean_mm']:.4f} mm in mean"
        )
    if "composite" in facts:
        rows["composite"] = facts["composite"]
    rows |= {f"but {name}": said for name, said in facts["cautions"].items()}
    say_table(str(exported.record), {**rows, **facts["files"]})


def _residual_row(residual_voxels: tuple[float, float] | None) -> dict[str, object]:
    if residual_voxels is None:
        return {}
    largest, mean = residual_voxels
    left = f"back and forth leaves {largest:.3f} voxels at most, {mean:.4f} in mean"
    return {"inverse": left}
