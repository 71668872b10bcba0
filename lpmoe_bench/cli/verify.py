"""The `verify` command: are records what they were when they were written?"""

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.errors import DataError


def verify_command(
    *,
    paths: Annotated[
        list[Path], typer.Argument(help="Folders of records, or of one record.", metavar="PATH...")
    ],
    out: options.Output,
) -> None:
    """Check digests of records, and make scores again from rows; exit code 3 where one fails."""
    from lpmoe_bench.records.verify import verify_records

    found = verify_records(paths)
    if out.json:
        out.print([one.as_json() for one in found], "")
    else:
        for one in found:
            print(one.text)
    broken = [one for one in found if one.faults]
    unsealed = sum(not one.sealed for one in found if not one.faults)
    words = f"{len(found) - len(broken)} of {len(found)} records are sound"
    words += f", {unsealed} of them unsealed" if unsealed else ""
    if broken:
        raise DataError(f"{words}; not so: {', '.join(str(one.folder) for one in broken[:5])}")
    out.terminal.say(words)
