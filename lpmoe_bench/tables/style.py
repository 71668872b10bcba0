"""How a table looks: the options of `table` that a style file holds, to make it again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.yaml_files import YamlError, read_yaml
from method_zoo.errors import unknown

# What to write where a value is of the wrong form, by pydantic's name of the error.
HINTS = {
    "string_pattern_mismatch": "write letters, digits and _ : . / - alone, such as tab:results",
    "string_too_short": "write a text, or leave it out",
    "list_type": "write names with commas, such as n, mae",
    "dict_type": "write names with their texts, such as {lora: Ours}",
    "string_type": "write a text, in quotes where it looks like a number",
}


class TableStyle(BaseModel):
    """The look of a table; what is not given is as every format has it by default.

    columns: costs to add; where a usual column or a metric is among them, exactly these, in this
        order.
    rename: new texts by a method's name or title, a row's label, a column's key, or a test set.
    order: rows that stand first, by the same names. digits: behind the point of every score.
    percent: print fractions in percent. sd: the standard deviation over seeds as it stands.
    caption, label: of the only table; label is LaTeX's \\label and HTML's id.
    env: LaTeX's environment; by default `table`, and `table*` where one column is too narrow.
    notes: the lines below; by default short in LaTeX, full elsewhere.
    """

    # An option that is misspelt would be passed over in silence, and the table be another one.
    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: list[str] = []
    rename: dict[str, Annotated[str, Field(min_length=1)]] = {}
    order: list[str] = []
    digits: int | None = Field(default=None, ge=0, le=6)
    percent: bool = False
    sd: Literal["none", "small", "full"] = "full"
    caption: str | None = None
    label: str | None = Field(default=None, pattern=r"^[\w:./-]+$")
    env: Literal["table", "table*", "none"] | None = None
    notes: Literal["none", "short", "full"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, content: Any) -> Any:
        """Take an option that a file leaves empty for one that is not given."""
        if not isinstance(content, dict):
            return content
        return {k: v for k, v in content.items() if v is not None or k not in cls.model_fields}

    @field_validator("columns", "order", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Allow one text with commas, as the command line has it, and keep each name once."""
        names = [one.strip() for one in value.split(",")] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
            return names
        return list(dict.fromkeys(filter(None, names)))

    def changed(self, **given: Any) -> TableStyle:
        """Return the style with these options in place of its own.

        Args:
            given: options by name; None and what is empty leaves the style's own.

        Raises:
            UsageError: a value that the option does not take.
        """
        found = {name: value for name, value in given.items() if value not in (None, "", [], {})}
        try:
            return TableStyle.model_validate(self.model_dump() | found)
        except ValidationError as error:
            raise UsageError(_sentence(error, "--")) from None


def read_style(path: Path) -> TableStyle:
    """Read a style file.

    Args:
        path: YAML with the options of `TableStyle` by name.

    Raises:
        DataError: it cannot be read, or holds an unknown option or a value that one does not take.
    """
    try:
        content = read_yaml(path)
        return TableStyle.model_validate({} if content is None else content)
    except ValidationError as error:
        raise DataError(f"--style {path}: {_sentence(error, '')}") from None
    except (OSError, YamlError) as error:
        raise DataError(f"--style {path} cannot be read ({error}); write it as YAML") from None


def parse_rename(texts: Iterable[str]) -> dict[str, str]:
    """Read NAME=TEXT for each; raises UsageError for another form."""
    found = {}
    for text in texts:
        name, _, new = (part.strip() for part in text.partition("="))
        if not (name and new):
            raise UsageError(f"--rename got '{text}'; write it as name=text, such as lora=Ours")
        if found.get(name, new) != new:
            raise UsageError(f"--rename has two texts for {name}; give one")
        found[name] = new
    return found


def _sentence(error: ValidationError, dashes: str) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return unknown("option of a table", name, TableStyle.model_fields)
    if not name:
        return "it holds no options by name; write lines such as digits: 2"
    place = dashes + ".".join(map(str, first["loc"]))
    if first["type"] in HINTS:
        return f"{place} is {first['input']!r}; {HINTS[first['type']]}"
    return f"{place} is {first['input']!r}: {first['msg'][:1].lower()}{first['msg'][1:]}"
