"""The one reader of YAML: plain values, or a sentence that says where and why not."""

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lpmoe_bench.config.settings import build_config, parse_sets, read_config_file
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.protocol_files import read_protocol
from lpmoe_bench.tables.published_figures import load_published
from lpmoe_bench.tables.style import read_style
from lpmoe_bench.yaml_files import MOST_BYTES, MOST_DEPTH, YamlError, parse_yaml, read_yaml

COUNT = int(os.environ.get("LPMOE_BENCH_EXAMPLES", "25"))
ROOT = Path(__file__).parents[1]
PLAIN = {
    "label: 2024-13-45": {"label": "2024-13-45"},
    "2024-01-31": "2024-01-31",
    "a: =": {"a": "="},
    "a: '010'": {"a": "010"},
    "[0, -0, 0x1f, 0b11, 1_000]": [0, 0, 31, 3, 1000],
    "[1.5, .5, 1.0e-4, ~, yes]": [1.5, 0.5, 1e-4, None, True],
    "a: &x {b: 1}\nc:\n  <<: *x\n  b: 2": {"a": {"b": 1}, "c": {"b": 2}},
    "\ufeffa: 1": {"a": 1},
    "": None,
}
LAUGHS = "a0: &a0 [x]\n" + "\n".join(
    f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]" for k in range(9)
)
REFUSED = {
    "a: 0x_": "line 1: 0x_ is no number that can be read",
    "a: " + "9" * 5000: "9... is no number that can be read",
    "a:\n- 010": "line 2: 010 could be octal",
    "lr: 1:30": "line 1: 1:30 would be a number to the base 60",
    "lr: 1:30.5": "to the base 60",
    "a: !!int abc": "the tag tag:yaml.org,2002:int is not allowed",
    "a: !!python/object/apply:os.getcwd []": "is not allowed",
    "a: !mine 3": "the tag !mine is not allowed",
    "a: 1\nb: 2\na: 3": "line 3: 'a' stands twice",
    "1: a\n0x1: b": "'1' stands twice",
    "[" * 1000: f"nested too deeply, over {MOST_DEPTH} levels",
    "[" * 200_000: "nesting depth",
    "a: " * 3: "line 1: mapping values are not allowed",
    LAUGHS: "its aliases stand for over",
    "a: &x [*x]": "*x stands for nothing that is complete",
    "a: *x": "*x stands for nothing",
    "? [1]\n: 2": "unhashable key",
    "a: 1\n---\nb: 2": "expected a single document in the stream",
    "a: \0": "control characters",
}


@pytest.mark.parametrize("text", PLAIN)
def test_plain_values(text):
    assert parse_yaml(text) == PLAIN[text]


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.faults
def test_what_is_refused(text):
    with pytest.raises(YamlError, match=re.escape(REFUSED[text])) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_depth_that_is_allowed_is_read():
    value, depth = parse_yaml("[" * MOST_DEPTH + "]" * MOST_DEPTH), 1
    while value:
        (value,), depth = value, depth + 1
    assert depth == MOST_DEPTH


def test_files(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("größe: 1".encode("latin-1"))
    with pytest.raises(YamlError, match="no UTF-8 text"):
        read_yaml(path)
    with open(path, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(YamlError, match="over 64 MiB"):
        read_yaml(path)
    with pytest.raises(OSError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_shipped_files_mean_what_yaml_means():
    """Nothing of these rests on a date, an octal number or another kind that is refused here."""
    paths = [*ROOT.glob("*.yaml"), *ROOT.glob("results/published/*.yaml")]
    for path in [*paths, *ROOT.glob("lpmoe_bench/**/*.yaml")]:
        content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader"))  # noqa: B009
        assert read_yaml(path) == content, path


def test_nothing_else_reads_yaml():
    for package in ("lpmoe_bench", "method_zoo"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "yaml_files.py":
                text = path.read_text(encoding="utf-8")
                assert not re.search(r"yaml\.(safe_|full_|unsafe_)?load", text), path


# Files of users at random, through every reader: a value or a sentence that names the file.

READERS = {
    "--config": lambda path: build_config(read_config_file(path)),
    "--datasets": load_registry,
    "--protocol": read_protocol,
    "--style": read_style,
    "published": lambda path: load_published.__wrapped__(path.parent),
}
SEEDS = [
    "method: lora\nsize: 256\ntrain: {lr: 1.0e-3, steps: 60}\nlabel: first try\n",
    "datasets:\n  mine: {title: Mine, task: cod, folder: mine, counts: {test: 3}, "
    "layouts: [{test: [images, masks]}]}\n",
    "base: cod\ntitle: Mine\ncolumns: [iou, mae]\nheadline: [mae]\n",
    "digits: 2\nrename: {lora: Ours}\n",
    *REFUSED,
]
# What changes a meaning rather than a letter.
SIGNS = ["!!int ", "&a ", "*a", "<<: ", "[", "]", "{", "}", "- ", ": ", "? ", "|\n", ">\n", "'"]
WORDS = ["---\n", "%TAG ! x\n", "2024-13-45", "0x_", "1e999", ".nan", "-.inf", "~", "\0", "\t"]
OTHERS = ["\ud800", "\u202e", "010", "1:30", "true", "no", "=", "9" * 400, '"', "\n"]
PIECES = st.sampled_from([*SIGNS, *WORDS, *OTHERS])


def refusal(read, given) -> str:
    """The sentence of a refusal, or an empty one; anything else that is raised is a fault."""
    try:
        read(given)
    except BenchError as error:
        return str(error)
    return ""


CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), PIECES), max_size=5)


@settings(max_examples=COUNT, deadline=None)
@given(st.sampled_from(SEEDS), CHANGES)
@example("label: 2024-13-45", [])
@example("tasks: {a: 1}\ndatasets: 3", [])
@example("sets: [1]\ntables: {}", [])
@pytest.mark.faults
def test_changed_files_are_read_or_refused_in_a_sentence(tmp_path_factory, text, changes):
    for at, cut, piece in changes:
        text = text[: at % (len(text) + 1)] + piece + text[at % (len(text) + 1) + cut :]
    path = tmp_path_factory.mktemp("own") / "mine.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for name, read in READERS.items():
        sentence = refusal(read, path)
        assert "\n" not in sentence, (name, text)
        assert len(sentence) < 2000, (name, text)


@settings(max_examples=COUNT, deadline=None)
@given(
    st.sampled_from(["rank", "train.lr", "decoder.width", "runtime.workers", "size", "x", "a.b.c"]),
    st.sampled_from(["", "8", "1e-4", "[1, 2]", "{a: 1}"]),
    st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=4),
)
@pytest.mark.faults
def test_settings_of_any_text_are_values_or_sentences(name, value, pieces):
    sentence = refusal(parse_sets, [f"{name}={value}{''.join(pieces)}"])
    assert not sentence or sentence.startswith(("--set", "unknown section"))
