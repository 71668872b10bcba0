"""The `contract` command: what every method promises, checked one by one on any method."""

from __future__ import annotations

from typing import Annotated

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.errors import BrokenContractError, UsageError
from method_zoo.options import check_options, get_method

MARKS = {"holds": "ok", "broken": "BROKEN", "does not apply": "-"}


def contract_command(
    *,
    name: Annotated[str, typer.Argument(help="A method, of the zoo or of a plug-in.")],
    plugin: options.Plugins = None,
    family: Annotated[
        list[str] | None,
        typer.Option(
            "--family", help="Families of backbones, with commas; or all.", show_default="plain"
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option("--check", help="Only these checks, with commas.", show_default="all"),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Options: rank=8.")] = None,
    out: options.Output,
) -> None:
    """Hold a method against the contract that all methods keep; prints check by check."""
    from lpmoe_bench.config.settings import parse_sets

    options.tell_plugins(out)
    given = parse_sets(set_ or [])
    if other := given.keys() - {"options"}:
        raise UsageError(
            f"--set of contract takes options of the method alone, such as rank=8; "
            f"{', '.join(sorted(other))} is none"
        )
    cls = get_method(name)
    chosen = check_options(cls, cls.title, given.get("options", {}))
    from method_zoo.contract.checks import CHECKS
    from method_zoo.contract.families import BROKEN, FAMILIES, OPEN, check_method

    families = _chosen("family", family, list(FAMILIES), ["plain"])
    checks = _chosen("check", check, list(CHECKS), list(CHECKS))
    out.terminal.say(f"{cls.title} on tiny backbones with random weights: {', '.join(families)}")
    width, rows = max(map(len, (*CHECKS, "build"))), []
    for row in check_method(cls, families, chosen, checks):
        rows.append(row)
        if not out.json:  # one by one, as some take seconds
            place = f"{row.family}  " if len(families) > 1 else ""
            print(f"{MARKS[row.outcome]:<6}  {place}{row.check:<{width}}  {row.words}", flush=True)
    broken = [row for row in rows if row.outcome == BROKEN]
    if out.json:
        found = {"method": name, "title": cls.title, "options": chosen}
        out.print(found | {"holds": not broken, "checks": [r._asdict() for r in rows]}, "")
    if broken:
        named = ", ".join(dict.fromkeys(row.check for row in broken))
        raise BrokenContractError(
            f"{len(broken)} of {len(rows)} checks of '{name}' are broken: {named}"
        )
    if all(row.outcome == OPEN for row in rows):
        raise BrokenContractError(f"nothing of '{name}' was checked: {rows[0].words}")
    open_ = sum(row.outcome == OPEN for row in rows)
    out.terminal.say(f"{len(rows) - open_} checks hold, {open_} do not apply")


def _chosen(kind: str, given: list[str] | None, known: list[str], usual: list[str]) -> list[str]:
    """Return names of an option; raises UsageError for one that there is not."""
    found = options.names(given) or usual
    if found == ["all"]:
        return known
    for name in found:
        if name not in known:
            raise UsageError.unknown(kind, name, known)
    return found
