"""The tables of the README and of docs/results.md: each is what the command above it prints.

`make tables` writes them anew, and the README's folders.
"""

import re
import shlex
from pathlib import Path

from reference import folders
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app

ROOT = Path(__file__).parents[2]
FILES = ("README.md", "docs/results.md")
TABLE = re.compile(
    r"(<!-- (?P<part>table|rows): (?P<command>[^>]+) -->\n).*?(\n<!-- end -->)", re.S
)
TREE = re.compile(r"(?<=```text\n)method_zoo/ .*?(?=\n```)", re.S)


def printed(part: str, command: str) -> str:
    """Return what a command prints: a whole table with its notes, or its rows alone."""
    program, *arguments = shlex.split(command)
    assert program == "lpmoe-bench", command
    places = [str(ROOT / one) if one.startswith("results/") else one for one in arguments]
    result = CliRunner().invoke(app, places, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = result.stdout.strip().splitlines()
    return "\n".join(line for line in lines if part == "table" or line.startswith("|"))


def renewed(text: str) -> str:
    """Return a page with its tables and its tree made anew."""

    def fill(found: re.Match[str]) -> str:
        return f"{found[1]}\n{printed(found['part'], found['command'])}\n{found[4]}"

    return TREE.sub(lambda _: folders(depth=2), TABLE.sub(fill, text))


if __name__ == "__main__":
    for path in (ROOT / name for name in FILES):
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
