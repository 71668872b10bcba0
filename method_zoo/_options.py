"""Options of methods and decoders: a class's signature is its config, checked against it."""

import inspect
import math

from ._errors import ZooError, unknown

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}


def signature_options(cls: type) -> dict[str, object]:
    """Return the options of a class and their defaults: the parameters that have a default."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def check_options(cls: type, title: str, options: dict[str, object]) -> dict[str, object]:
    """Fill the defaults in and return all options; raises ZooError for unknown or mistyped ones.

    A number must be finite: nan passes every comparison with a limit that it should fail.
    """
    known = signature_options(cls)
    for name, value in options.items():
        if name not in known:
            raise ZooError(unknown(f"option of {title}", name, known))
        default = known[name]
        whole_for_float = type(default) is float and type(value) is int
        if type(value) is not type(default) and not whole_for_float:
            raise ZooError(
                f"option {name} of {title} is {value!r}; "
                f"it takes {KINDS.get(type(default), 'a value')}, such as {default!r}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ZooError(
                f"option {name} of {title} is {value}; "
                f"it takes a finite number, such as {default!r}"
            )
    given = {k: float(v) if type(known[k]) is float else v for k, v in options.items()}  # type: ignore[arg-type]
    return known | given
