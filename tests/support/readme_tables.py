"""The tables of the README and the page of results, as the committed records make them.

`python tests/readme_tables.py` writes them into the files, with the tree.
"""

import re
from pathlib import Path

from readme_tree import ROOT, tree

from lpmoe_bench.records.context import keep_only
from lpmoe_bench.records.store import find_records
from lpmoe_bench.tables.formats import format_table
from lpmoe_bench.tables.table import build_table, read_speeds
from lpmoe_bench.tables.verdicts import with_verdicts

RECORDS = ROOT / "results" / "records"
# Each block of the README by its name: the settings of its records, and those of its table.
BLOCKS = {
    "tasks": ({"train.limit_train": "200"}, {"methods": ["lora", "lpmoe"], "group": "all"}),
    "sweep": ({"train.limit_train": "150"}, {"group": "all", "sort": "s_measure"}),
    "methods": (
        {"train.limit_train": "200"},
        {"test_set": "camo/test", "sort": "s_measure", "across": ["decoder"], "speeds": True},
    ),
    "all images": (
        {"train.limit_train": "none"},
        {"test_set": "camo/test", "sort": "s_measure", "speeds": True},
    ),
}
AGAINST = {"sweep": "decoder_only"}  # where rows have verdicts


def block(name: str) -> str:
    """Return a table of the README as Markdown, without the notes on tables that it lacks."""
    settings, options = BLOCKS[name]
    stored = keep_only(find_records([RECORDS]).stored, list(settings.items()))
    if options.get("speeds"):
        options = options | {"speeds": read_speeds(ROOT / "results" / "speed" / "cpu.json")}
    table = build_table([one.record for one in stored], **options)
    if name in AGAINST:
        table = with_verdicts(table, stored, AGAINST[name], margin=0.005)
    return format_table(table, "markdown").partition("\n\nNote: ")[0].strip()


def results_page() -> str:
    records = find_records([RECORDS]).records
    table = build_table(records, metrics=["all"], sort="s_measure", across=["decoder"])
    title = "# Results\n\nEvery metric of the published records.\n\n"
    return title + format_table(table, "markdown")


def framed(name: str, text: str) -> str:
    return f"<!-- table: {name} -->{text}<!-- end of table -->"


def written(readme: str) -> str:
    """Return the README with its tables and its tree made anew."""
    for name in BLOCKS:
        new = framed(name, f"\n\n{block(name)}\n\n")
        readme = re.sub(framed(name, ".*?"), lambda _, new=new: new, readme, flags=re.S)
    return re.sub(r"method_zoo/ .*?(?=\n```)", lambda _: tree(), readme, flags=re.S)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    Path(ROOT / "docs" / "results.md").write_text(results_page(), encoding="utf-8")
