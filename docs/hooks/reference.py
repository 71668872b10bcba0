"""What the reference says of the code is written from the code, each time the site is built.

A page holds a line `<!-- write: NAME -->`; the function under that name in `WRITERS` gives the
Markdown in its place. `on_page_markdown` is for MkDocs; the tests call the others without it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write what a page asks for in the place where it asks."""
    return write(markdown, WRITERS)


def write(markdown: str, writers: dict[str, Callable[[], str]]) -> str:
    """Replace the lines that ask for one of these writers."""
    names = "|".join(writers)
    return re.sub(rf"<!-- write: ({names}) -->", lambda found: writers[found[1]](), markdown)


# Markdown.


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def code(value: object) -> str:
    return f"`{value}`"


def shown(value: object) -> str:
    """A default as `--set` and YAML take it; nothing at all is `null`."""
    if value in ("", {}):
        value = None
    return code(value if isinstance(value, str) else json.dumps(value))


def sentences(pairs: Iterable[tuple[str, str]], skip: Iterable[str] = ()) -> str:
    """The lines of `lpmoe-bench describe` as a list; a field that is indented is a level down."""
    lines = []
    for field, text in pairs:
        if field.strip() in skip:
            continue
        indent = "    " if field.startswith("  ") else ""
        words = cell(text).replace("<", "&lt;").replace("*", "\\*")
        lines.append(f"{indent}- **{field.strip()}** {words}" if field else f"    - {words}")
    return "\n".join(lines) + "\n"


# The reference.


def command_line() -> str:
    """Every command with its arguments and options, by typer's own generator."""
    import typer
    from typer.cli import get_docs_for_click

    from lpmoe_bench.cli.app import app

    root = shown_commands(typer.main.get_command(app))
    context = root.context_class(root, info_name="lpmoe-bench")
    text = get_docs_for_click(obj=root, ctx=context, name="lpmoe-bench", title="Command line")
    # Its lists of commands cut each sentence after 45 characters: one list of our own instead.
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)
    rows = [
        [f"[{name}](#lpmoe-bench-{name})", one.get_short_help_str(limit=999)]
        for name, one in root.commands.items()
    ]
    _, usage, rest = text.partition("**Usage**")
    return f"{table(('command', 'what it does'), rows)}\n{usage}{rest}"


def shown_commands(command: Any) -> Any:
    """Take the commands away that `--help` does not show."""
    named = {k: shown_commands(v) for k, v in getattr(command, "commands", {}).items()}
    if named:
        command.commands = {name: one for name, one in named.items() if not one.hidden}
    return command


def settings() -> str:
    """Every setting with its default, limits and role, as `lpmoe-bench describe` says them."""
    from lpmoe_bench.cli.lists import description
    from lpmoe_bench.config.settings import setting_fields
    from lpmoe_bench.data.registry import load_registry

    registry = load_registry(None)
    parts: dict[str, list[list[str]]] = {"": [], "facts": [], "train": [], "runtime": []}
    for name, info in setting_fields().items():
        said = dict(pair for pair in description(name, registry) if pair[0] in ("limits", "role"))
        role = said["role"].partition(":")[0]
        row = [code(name), shown(info.default), said.get("limits", ""), role, str(info.description)]
        parts[name.rpartition(".")[0]].append(row)
    head = ("setting", "default", "limits", "role", "meaning")
    heads = {"": "A run", "facts": "Facts of the backbone's weights", "train": "Training"}
    heads |= {"runtime": "Where and how fast it computes"}
    return "\n".join(f"## {heads[k]}\n\n{table(head, v)}" for k, v in parts.items())


def protocols() -> str:
    from lpmoe_bench.metrics.protocols import PROTOCOLS, explain_protocol

    rows = [[f"[{p.name}](#{p.name})", p.title, p.label] for p in PROTOCOLS.values()]
    text = table(("protocol", "for", "version and hash"), rows)
    for protocol in PROTOCOLS.values():
        lines = [pair for pair in explain_protocol(protocol) if not pair[0].startswith("  ")]
        named = ", ".join(f"[{key}](metrics.md#{key})" for key in protocol.metrics)
        text += f"\n## {protocol.name}\n\n{protocol.title}.\n\n"
        text += sentences(lines, skip=("protocol", "metrics")) + f"- **metrics** {named}\n"
    return text


def metrics() -> str:
    from lpmoe_bench.metrics.extra import EXTRA
    from lpmoe_bench.metrics.facts import METRICS
    from lpmoe_bench.metrics.protocols import PROTOCOLS, explain_metric

    rows = [
        [f"<a id='{key}'></a>`{key}`", one.label, one.arrow, one.definition,
         ", ".join(p.name for p in PROTOCOLS.values() if key in p.metrics)]
        for key, one in METRICS.items()
    ]  # fmt: skip
    text = table(("metric", "column", "", "definition", "protocols"), rows)
    text += "\n## Extra metrics\n\nOff by default: they take long, or depend on the resolution.\n"
    for key, one in EXTRA.items():
        text += f"\n### {key}\n\n{sentences(explain_metric(one), skip=('metric', 'note'))}"
    return text


def models() -> str:
    """Backbones, decoders, losses and recipes, in the words of `list` and `describe`."""
    from lpmoe_bench.cli.lists import description, listing
    from lpmoe_bench.data.registry import load_registry

    registry = load_registry(None)
    text = ""
    for kind in ("backbones", "losses"):
        rows = [[code(name), words] for name, words in listing(kind, registry, None)]
        text += f"\n## {kind.capitalize()}\n\n{table(('name', 'about'), rows)}"
    for kind, skip in (("decoders", ("decoder",)), ("recipes", ("recipe",))):
        text += f"\n## {kind.capitalize()}\n"
        for name, _ in listing(kind, registry, None):
            text += f"\n### {name}\n\n{sentences(description(name, registry), skip)}"
    return text


def data_sets() -> str:
    from lpmoe_bench.data.registry import load_registry

    registry = load_registry(None)
    tasks = [
        [code(t.name), t.title, code(t.protocol), ", ".join(map(code, t.train)),
         ", ".join(map(code, t.test)), code(t.embedded) if t.embedded else ""]
        for t in registry.tasks.values()
    ]  # fmt: skip
    sets = [
        [code(d.name), d.title, ", ".join(d.split_names), d.page, d.licence]
        for d in registry.datasets.values()
    ]
    return (
        "## Tasks\n\n"
        + table(("task", "what", "protocol", "trained on", "tested on", "drawn in code"), tasks)
        + "\n## Data sets\n\n"
        + table(("set", "title", "splits", "page", "licence"), sets)
    )


# The folders.


def folders(depth: int = 9, packages: Sequence[str] = ("method_zoo", "lpmoe_bench")) -> str:
    """The packages, with the first line of their docstrings, as a text block's lines."""
    lines = []
    for package in packages:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            path = init.parent.relative_to(ROOT)
            if len(path.parts) <= depth:
                doc = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
                lines.append(f"{path}/".ljust(28) + doc.partition("\n")[0])
    return "\n".join(lines)


def tree() -> str:
    """The packages and the modules beside those of `lpmoe_bench`."""
    beside = [path for path in (ROOT / "lpmoe_bench").glob("*.py") if path.name[0] != "_"]
    lines = [folders()]
    for path in sorted(beside):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(str(path.relative_to(ROOT)).ljust(28) + doc.partition("\n")[0])
    return "```text\n" + "\n".join(lines) + "\n```\n"


WRITERS: dict[str, Callable[[], str]] = {
    "command_line": command_line,
    "settings": settings,
    "protocols": protocols,
    "metrics": metrics,
    "models": models,
    "data_sets": data_sets,
    "tree": tree,
}
