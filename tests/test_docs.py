"""The pages keep their word: their commands exist, and what is written from the code is whole."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import methods
import pytest
import reference
import typer
from typer.testing import CliRunner
from written_tables import ROOT

from lpmoe_bench.cli.app import app
from lpmoe_bench.config.settings import setting_fields
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.model import costs

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.M | re.S)
COMMAND = re.compile(r"(?<![\w/.-])lpmoe-bench ((?:[a-z]|--).*)")


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command in the code of a page, up to a comment or another command."""
    for code in CODE.finditer(text):
        for found in COMMAND.finditer((code[1] or code[2]).replace("\\\n", " ")):
            line = re.split(r"\s#|[;>)`]|\s\.\.\.", found[1])[0]
            try:
                yield shlex.split(line)
            except ValueError:  # a quote that ends in the next line
                yield line.split()


def wrong(words: list[str]) -> str:
    """Say what a command line has that no command has; empty where all of it exists."""
    command, rest = typer.main.get_command(app), list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return name
        command = command.commands[name]
    known = {one for param in command.params for one in (*param.opts, *param.secondary_opts)}
    options = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    unknown = [one for one in options if one not in {*known, "--help"}]
    return ", ".join(unknown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    found = {" ".join(words): wrong(words) for words in commands(text)}
    assert {line: bad for line, bad in found.items() if bad} == {}


def test_a_command_that_does_not_exist_is_noticed():
    text = (
        "`lpmoe-bench tabel`, `lpmoe-bench run --methd x`; lpmoe-bench is prose\n\n"
        "```sh\nlpmoe-bench check pin --cap 1  # --y\n```\n"
    )
    assert [wrong(words) for words in commands(text)] == ["tabel", "--methd", ""]


def test_pages_that_the_code_names_exist():
    sources = [*(ROOT / "lpmoe_bench").rglob("*.py"), ROOT / ".ci" / "gate.yaml", *PAGES]
    for path in sources:
        for name in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path} names {name}"


def test_links_of_the_pages_outside_the_site_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\(([^)#]+)[)#]", (ROOT / name).read_text(encoding="utf-8"))
        assert len(links) >= 6
        assert [link for link in links if not (ROOT / "".join(link.split())).exists()] == []


def test_every_mark_has_a_writer():
    marks = [m for page in PAGES for m in re.findall(r"<!-- write: (\w+) -->", page.read_text())]
    own = {"methods", "budgets"}  # of docs/hooks/methods.py
    assert sorted(marks) == sorted({*reference.WRITERS, *own})


def test_what_the_pages_take_from_docstrings_exists():
    for page in PAGES:
        for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M):
            resolve_name(name)  # an error names what is gone


def test_the_reference_is_whole():
    settings = reference.settings()
    assert all(f"| `{name}` | " in settings for name in setting_fields())
    assert "| `size` | `256` |  | recipe | " in settings
    protocols = reference.protocols()
    assert all(
        f"\n## {one.name}\n" in protocols and one.hash in protocols for one in PROTOCOLS.values()
    )
    assert all(key in reference.metrics() for key in known_metrics())
    root = typer.main.get_command(app)
    text = reference.command_line()
    for name, command in root.commands.items():
        if command.hidden:
            continue
        assert f"\n## `lpmoe-bench {name}`\n" in text
        assert command.get_short_help_str(limit=999) in text
    assert "**Commands**" not in text  # typer's own list cuts their sentences
    assert "sweep status`" in text
    assert "sweep cell`" not in text  # hidden


def test_a_page_of_a_method_has_all_of_it(monkeypatch):
    rows = costs._rows  # all of them are counted in tests/model/test_costs.py

    def of_lora(table):
        return rows(table | {"rows": [row for row in table["rows"] if row["method"] == "lora"]})

    monkeypatch.setattr(costs, "_rows", of_lora)
    monkeypatch.setattr(costs, "_grid", lambda grid: {})
    monkeypatch.setattr(methods, "counted", costs.budgets)
    page = methods.method_page("lora")
    assert "y = W x + b + (alpha / rank) B A x" in page
    assert '| `targets` | `qkv` | "qkv" gives the fused layer one update' in page
    assert "| `rank` | `8` | " in page
    assert "147,456 on ViT-S, 294,912 on ViT-B" in page
    assert "| rank 3 on the fused qkv | 3,997,056 | 4.00 | 0 |" in page


def test_published_rows_are_those_of_the_table():
    arguments = ["table", "--source", "conv_lora", "--method", "lora", "--quiet"]
    printed = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    (row,) = [line for line in printed.splitlines() if line.startswith("| LoRA")]
    cells = [cell for cell in row.strip("| ").split(" | ")[1:] if "±" in cell]
    assert len(cells) == 14
    page = methods.published("lora")
    for cell in (re.sub(r"\*\*|</?u>", "", cell) for cell in cells):
        assert f"| {cell} |" in page
