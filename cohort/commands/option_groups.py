"""Groups of options: a command takes each as one parameter, the command line shows its options."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """A command for the command line, in which each field of a group is an option.

    Args:
        command: parameters that are annotated with a dataclass are groups.
    """
    declared = inspect.signature(command).parameters.values()
    groups = {one.name: one.annotation for one in declared if _is_group(one.annotation)}

    @wraps(command)
    def spread(**said: Any) -> None:
        gathered = {
            name: group(**{field.name: said.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**said, **gathered)

    options = [option for one in declared for option in _options(one)]
    # what typer reads: the signature for the order, the annotations for the kinds
    spread.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    spread.__annotations__ = {one.name: one.annotation for one in options}
    return spread


def _is_group(annotation: Any) -> bool:
    return is_dataclass(annotation)


def _options(declared: inspect.Parameter) -> Iterator[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    if not _is_group(declared.annotation):
        yield declared.replace(kind=kind)
        return
    for field in fields(declared.annotation):
        yield inspect.Parameter(field.name, kind, default=field.default, annotation=field.type)
