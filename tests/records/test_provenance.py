"""The digest of the code of method, decoder and loss: what moves it, and what is in it."""

import pytest
from sample_records import content, record

from lpmoe_bench.records import provenance
from lpmoe_bench.records.model import CodeFacts
from lpmoe_bench.records.provenance import code_changes, code_facts, is_other_code, syntax_digest
from lpmoe_bench.tables.formats import format_table
from lpmoe_bench.tables.table import build_table
from method_zoo.options import list_methods
from method_zoo.plugins import VARIABLE

SOURCE = '''"""About it."""
class Method:
    """One."""

    def forward(self, x):  # a comment
        """Return it."""
        return x + 1
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("  # a comment", "", True),
        ('        """Return it."""\n', "", True),
        ('"""About it."""\n', '"""Something else\n\nand more."""\n\n', True),
        ("x + 1", "(x +\n            1)", True),
        ("x + 1", "x + 2", False),
        ("x + 1", "1 + x", False),
        ("x + 1", "x - 1", False),
        ("x + 1", "x + 1.0", False),
        ("(self, x)", "(self, x=0)", False),
        ("return x", '"text"\n        return x', False),
    ],
)
def test_only_what_computes_counts(old, new, same):
    assert old in SOURCE
    changed = SOURCE.replace(old, new)
    assert (syntax_digest(changed) == syntax_digest(SOURCE)) is same


def test_the_set_is_what_method_decoder_and_loss_are_made_of():
    found = code_facts("conv_lora", "mask2former")
    assert found is not None
    assert {
        *("method_zoo.conv_lora", "method_zoo.lora", "method_zoo.method"),
        *("method_zoo.backbones.beit", "method_zoo.backbones.linear"),
        *("method_zoo.parts.deformable", "lpmoe_bench.model.losses"),
        *("lpmoe_bench.model.decoders.mask2former", "lpmoe_bench.model.decoders.decoder"),
        "lpmoe_bench.model.segmenter",
    } <= found.modules.keys()
    names = " ".join(found.modules)
    for word in ("errors", "options", "weights", "names", "vpt", "decoders.fpn"):
        assert word not in names
    assert found == code_facts("conv_lora", "mask2former")
    assert found.digest != code_facts("lora", "mask2former").digest


def test_every_method_has_a_digest_and_an_unknown_one_none():
    digests = {code_facts(name, "fpn").digest for name in list_methods()}
    assert len(digests) == len(list_methods())
    for name in ("no_such", "../etc", "backbones/beit", ""):
        assert code_facts(name, "fpn") is None


def made_by(change="", seed=0, **more):
    facts = code_facts("lora", "fpn")
    modules = facts.modules | ({"method_zoo.lora": change} if change else {})
    digest = change.ljust(64, "0") if change else facts.digest
    own = CodeFacts(digest=digest, modules=modules).model_dump()
    return record(seed=seed).model_validate(
        content(seed=seed, schema_version=2, code=own, seal={"rows": "", "record": ""}, **more)
    )


def test_other_code_is_named_by_module():
    assert not is_other_code(made_by())
    assert is_other_code(made_by("abcd"))
    assert not is_other_code(record())  # of which nobody knows it
    here = code_facts("lora", "fpn")
    there = made_by("abcd").code
    assert code_changes(there, here) == ["method_zoo.lora changed"]
    less = CodeFacts(digest="0", modules={"method_zoo.gone": "1"})
    assert "method_zoo.gone is used no more" in code_changes(less, here)
    assert "method_zoo.lora is new" in code_changes(less, here)
    assert code_changes(less, None) == ["its method or decoder is not in this program"]


def test_a_change_of_a_file_is_seen(tmp_path, monkeypatch):
    before = code_facts("lora", "fpn")
    path = provenance._file("method_zoo.lora")
    copy = tmp_path / "lora.py"
    find = provenance._file
    monkeypatch.setattr(provenance, "_file", lambda n: copy if n == "method_zoo.lora" else find(n))
    copy.write_text("# more words\n" + path.read_text())
    provenance._read.cache_clear()
    assert code_facts("lora", "fpn") == before
    copy.write_text(path.read_text() + "\nmore = 1\n")
    provenance._read.cache_clear()
    assert code_changes(before, code_facts("lora", "fpn")) == ["method_zoo.lora changed"]
    provenance._read.cache_clear()


def test_a_table_marks_seeds_of_different_code():
    table = build_table([made_by("aaaa"), made_by("aaaa", seed=1), made_by("bbbb", seed=2)])
    text = format_table(table, "markdown")
    assert "LoRA (seeds of 2 codes)" in text
    assert "seed 0, 1 by aaaa0000; seed 2 by bbbb0000" in text
    for seeds in ([made_by(), made_by(seed=1)], [made_by(), record(seed=1)]):
        assert "codes" not in format_table(build_table(seeds), "markdown")


def test_plug_ins_count_with_what_they_import_from_beside_them(tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text("K = 1\n")
    plugin = tmp_path / "scaled.py"
    plugin.write_text(
        "from helper import K\nfrom method_zoo import Method\n\n\nclass Scaled(Method):\n"
        "    title = 'Scaled'\n    factor = K\n"
    )
    monkeypatch.setenv(VARIABLE, str(plugin))
    first = code_facts("scaled", "fpn")
    assert {"plug-in scaled: scaled.py", "plug-in scaled: helper.py"} < first.modules.keys()
    plugin.write_text(plugin.read_text() + "# a comment\n")
    assert code_facts("scaled", "fpn") == first
    (tmp_path / "helper.py").write_text("K = 3\n")
    changes = code_changes(first, code_facts("scaled", "fpn"))
    assert changes == ["plug-in scaled: helper.py changed"]
    assert code_facts("nowhere", "fpn") is None
