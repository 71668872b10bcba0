"""Configuration: roles, precedence, error sentences, fingerprint."""

import pytest

from lpmoe_bench.config import settings
from lpmoe_bench.errors import UsageError


def test_every_field_has_a_role():
    assert set(settings.fields_by_role().values()) == {"recipe", "protocol", "runtime", "label"}


def test_later_layers_win():
    config = settings.build_config(
        {"train": {"lr": 1.0, "epochs": 9}}, {"train": {"lr": 0.5}}, {"size": 64}
    )
    assert (config.train.lr, config.train.epochs, config.size) == (0.5, 9, 64)


def test_sets_go_to_their_sections():
    layer = settings.parse_sets(
        ["rank=8", "alpha=1e-1", "decoder.width=32", "train.lr=1e-4", "deep=false"]
    )
    assert layer["options"] == {"rank": 8, "alpha": 0.1, "deep": False}
    assert layer["decoder_options"] == {"width": 32}
    assert layer["train"] == {"lr": 1e-4}


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        ({"sise": 64}, "did you mean 'size'"),
        ({"train": {"epochss": 3}}, "did you mean 'train.epochs'"),
        ({"train": {"epochs": 0}}, "train.epochs is 0"),
        ({"size": 250}, "must be a multiple of 32, such as 256"),
        ({"seed": -1}, "seed is -1"),
        ({"facts": {"mean": "imagnet"}}, "facts.mean is 'imagnet': .*imagenet, inception, clip"),
        ({"facts": {"mean": [123.675, 116.28, 103.53]}}, "for 0 to 255 by 255"),
        ({"facts": {"std": [0, 0.2, 0.2]}}, "facts.std is"),
        ({"facts": {"patch": 0}}, "facts.patch is 0"),
        ({"facts": {"pathc": 8}}, "did you mean 'facts.patch'"),
        ({"facts": 3}, "it holds settings of its own by name"),
        ({"train": {"precision": "fp8"}}, "train.precision is 'fp8'"),
    ],
)
def test_wrong_settings_are_one_sentence(layer: dict, sentence: str):
    with pytest.raises(UsageError, match=sentence) as caught:
        settings.build_config(layer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("rank", "name=value"), ("optim.lr=1", "unknown section"), ("rank=[1", "no plain value")],
)
def test_wrong_sets_are_one_sentence(text: str, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        settings.parse_sets([text])


@pytest.mark.parametrize("content", ["- a list", "size: [1", "!!python/object/apply:os.getcwd []"])
def test_wrong_config_files_are_one_sentence(tmp_path, content: str):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(UsageError):
        settings.read_config_file(path)


def _other_value(name: str, role: str):
    """Return a layer that changes one field to another valid value."""
    values = {
        "train.limit_train": 7,
        "train.limit_validation": 7,
        "train.precision": "bf16-mixed",
        "train.validation": 0.5,
        "train.warmup": 0.5,
        "runtime.device": "cpu",
        "runtime.workers": 3,
        "runtime.micro_batch": 2,
        "runtime.cache_features": "disk",
        "runtime.recompute": "interactions",
        "runtime.compile": "default",
        "runtime.cache_gib": 2.0,
        "size": 512,
        "train.steps": 7,
        "train.patience": 3,
        "train.scale": [0.5, 2.0],
        "train.decode": "reduced",
        "train.class_weights": [1.0, 2.0],
        "preprocessing": 1,
        "arithmetic": 1,
        "fit": "letterbox",
        "evaluate": "windows",
        "classes": ["sky", "road"],
        "things": ["road"],
        "facts.mean": "clip",
        "facts.std": [0.1, 0.2, 0.3],
        "facts.patch": 8,
        "facts.grid": 7,
        "facts.pos_antialias": False,
        "weights": "random",
        "decoder_weights": "sam.pth",
        "options": {"rank": 3},
        "decoder_options": {"width": 8},
    }
    section, _, leaf = name.rpartition(".")
    default = (
        getattr(settings.RunConfig(), section) if section else settings.RunConfig()
    ).__getattribute__(leaf)
    value = values.get(name)
    if value is None:
        value = (
            (not default)
            if isinstance(default, bool)
            else default + ("x" if isinstance(default, str) else 1)
        )
    return {section: {leaf: value}} if section else {leaf: value}


@pytest.mark.parametrize(("name", "role"), settings.fields_by_role().items())
def test_fingerprint_hashes_recipe_and_protocol_and_nothing_else(name: str, role: str):
    before = settings.fingerprint(settings.build_config(), {"train": "a"})
    # As of a record: a new run has no choice of `arithmetic`.
    stored = settings.stored_config(
        {"preprocessing": 2, "arithmetic": 2} | _other_value(name, role)
    )
    after = settings.fingerprint(stored, {"train": "a"})
    assert (before != after) == (role in ("recipe", "protocol"))


def test_fingerprint_hashes_the_digests():
    assert settings.fingerprint(settings.build_config(), {"train": "a"}) != settings.fingerprint(
        settings.build_config(), {"train": "b"}
    )


def test_a_bare_name_is_a_setting_of_the_run_or_an_option_of_the_method():
    assert settings.parse_sets(["size=128", "protocol=sod", "rank=8", "seed=1", "train.lr=1"]) == {
        "size": 128,
        "protocol": "sod",
        "options": {"rank": 8, "seed": 1},  # VeRA has an option of that name
        "train": {"lr": 1},
    }


@pytest.mark.parametrize("text", ["[" * 100_000, "0x_", "010", "1:30", "!!int 3", "*x"])
def test_values_that_yaml_cannot_read_are_refused_in_a_sentence(tmp_path, text):
    with pytest.raises(UsageError, match="which is no plain value"):
        settings.parse_sets([f"rank={text}"])
    path = tmp_path / "own.yaml"
    path.write_text(f"rank: {text}")
    with pytest.raises(UsageError, match="is not valid YAML"):
        settings.read_config_file(path)


@pytest.mark.parametrize(
    "layer", [{"size": 10**400}, {"options": {"rank": 10**30}}, {"train": {"batch": -(2**62)}}]
)
def test_numbers_that_no_tensor_has_are_refused(layer):
    with pytest.raises(UsageError, match=r"is a number of over 18 digits; use one below 2\^62"):
        settings.build_config(layer)
