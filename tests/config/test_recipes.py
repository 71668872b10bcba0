"""Named recipes: they fit, what wins over what, what they say, and old fingerprints."""

import json
from pathlib import Path

import pandas as pd
import pytest
from tiny_runs import arguments, call, only_run

from lpmoe_bench.config import settings
from lpmoe_bench.config.recipes import describe_recipe, load_recipes, recipe_layers, recipe_notes
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.names import get_decoder
from lpmoe_bench.model.losses import get_loss
from lpmoe_bench.records.store import read_record
from lpmoe_bench.training.plan import complete_config
from lpmoe_bench.training.request import preset_layer
from method_zoo.backbones.create import check_backbone_name
from method_zoo.options import get_method, signature_options, vars_of

# Maps that another program made have no settings of ours: they lie under scored/.
PUBLISHED = (Path(__file__).parents[2] / "results" / "records").rglob("run.json")
RECORDS = sorted(path for path in PUBLISHED if "scored" not in path.parts)
assert RECORDS  # of an empty list every test would be skipped
CPU = {"runtime": {"device": "cpu"}}


@pytest.mark.parametrize("name", load_recipes())
def test_a_recipe_fits_what_there_is(name):
    recipe = load_recipes()[name]
    registry = load_registry()
    for task in ("cod", *recipe.tasks):
        assert task in registry.tasks
        layers = recipe_layers(name, task, [])
        method = get_method(layers[0]["method"])
        config = complete_config(
            settings.build_config(preset_layer(vars_of(method)), *layers, CPU), method
        )
        check_backbone_name(config.backbone)
        get_decoder(config.decoder)
        get_loss(config.train.loss)
    assert recipe.deviations


def test_the_papers_own_numbers():
    config = settings.build_config(*recipe_layers("lpmoe_paper", "cod", []))
    train = config.train
    assert (train.steps, train.batch, train.lr, train.weight_decay) == (80_000, 16, 5e-5, 0.05)
    assert (train.clip, config.size, config.decoder) == (None, 512, "mask2former")
    assert round(train.warmup * 80_000) == 1500
    for task, epochs, rate in (("polyp", 30, 1e-4), ("cod", 20, 1e-4), ("road", 20, 3e-4)):
        train = settings.build_config(*recipe_layers("conv_lora_paper", task, [])).train
        assert (train.epochs, train.lr, train.decoder_lr) == (epochs, rate, rate)
    shadow = settings.build_config(*recipe_layers("conv_lora_paper", "shadow", [])).train
    assert (shadow.epochs, shadow.loss, shadow.patience) == (10, "balanced_bce", 10)


def test_options_belong_to_their_method():
    kept, _ = recipe_layers("conv_lora_paper", "cod", [{"size": 64}])
    assert kept["options"]["rank"] == 3
    other, _ = recipe_layers("conv_lora_paper", "cod", [{"method": "vpt"}])
    assert "options" not in other
    assert other["train"] == kept["train"]
    again, _ = recipe_layers("conv_lora_paper", "cod", [{"method": "vpt"}, {"method": "conv_lora"}])
    assert again == kept


def test_no_recipe_is_no_layer_and_an_unknown_one_a_sentence():
    assert recipe_layers("", "cod", []) == recipe_notes("") == []
    with pytest.raises(UsageError, match="did you mean 'lpmoe_paper'"):
        recipe_layers("lpmoe_papr", "cod", [])


def test_precedence(data, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("recipe: conv_lora_paper\ntrain: {weight_decay: 0.5, power: 3}\n")
    done = call(
        arguments(
            *(data, tmp_path, "--config", str(file), "--dry-run", "--json", "--decoder", "fpn"),
            *("--set", "train.power=2", "--set", "runtime.device=cpu"),
        )
    )
    assert done.code == 0, done.stderr
    planned = json.loads(done.stdout)
    config, train = planned["config"], planned["config"]["train"]
    assert (config["method"], config["options"]["rank"]) == ("lora", 8)  # flag; its own options
    assert (config["size"], config["decoder"]) == (64, "fpn")  # flags over the recipe
    assert (train["epochs"], train["power"]) == (2, 2.0)  # --set over --config and the recipe
    assert train["weight_decay"] == 0.5  # --config over the recipe
    assert (train["lr"], train["patience"]) == (1e-4, 10)  # the recipe over the method's preset
    assert planned["notes"][0].startswith("recipe conv_lora_paper: the mask decoder starts at")
    assert "note: recipe conv_lora_paper: the mask decoder" in done.stderr


def test_describe_and_list():
    text = " ".join(call(["describe", "lpmoe_paper"]).stdout.split())
    assert "train.steps 80000" in text
    assert "those of the test set itself" in text
    assert "02c7363" in text
    names = [row[0] for row in json.loads(call(["list", "recipes", "--json"]).stdout)]
    assert names == list(load_recipes())
    epochs = [text for name, text in describe_recipe("conv_lora_paper") if "(cod)" in name]
    assert epochs == ["20"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parts[-3] + "-" + path.parts[-4])
def test_published_fingerprints_stay(path):
    """Settings and options that came later change no hash of runs made before them."""
    record = read_record(path.parent)
    method = get_method(record.method.name)
    digests = {
        "train": record.data.train.digest,
        "tests": {split.label: split.digest for split in record.data.tests},
        "protocol": record.protocol.hash,
        "weights": record.backbone.weights_sha256,
    }
    validation = record.data.validation
    if validation and validation.label != f"{record.data.train.label}-validation":
        digests["validation"] = validation.digest  # a split of the set's own, and not carved
    config = settings.stored_config(record.config)
    own = record.config["options"]
    asked = {k: v for k, v in own.items() if v != signature_options(method)[k]}
    again = complete_config(config.model_copy(update={"options": asked}), method)
    assert again.options == own
    assert settings.fingerprint(again, digests) == record.fingerprint


def test_new_runs_are_of_the_second_preprocessing_and_old_records_of_the_first():
    old = settings.stored_config({"method": "lora"})
    assert (old.preprocessing, settings.build_config().preprocessing) == (1, 2)
    assert settings.build_config(settings.parse_sets(["preprocessing=1"])) == settings.RunConfig(
        preprocessing=1
    )
    # Absence is version 1: the hash of an old run is what it was before there was a second one.
    first, second = (
        settings.fingerprint(settings.RunConfig(preprocessing=version, arithmetic=1), {})
        for version in (1, 2)
    )
    assert first != second
    assert first == settings.fingerprint(settings.stored_config({}), {})


def test_new_runs_are_of_the_second_arithmetic_and_ask_for_no_other():
    assert settings.stored_config({"method": "lora"}).arithmetic == 1
    new = settings.build_config(settings.parse_sets(["arithmetic=2"]))
    assert new == settings.build_config() == settings.RunConfig(arithmetic=2)
    # Of old records the hash is what it was; a record of version 2 has another one.
    first, second = (
        settings.fingerprint(settings.RunConfig(preprocessing=1, arithmetic=version), {})
        for version in (1, 2)
    )
    assert first == settings.fingerprint(settings.stored_config({}), {}) != second
    with pytest.raises(UsageError, match="setting arithmetic is 1, which only records of older"):
        settings.build_config(settings.parse_sets(["arithmetic=1"]))


def test_later_settings_are_hashed_off_their_default():
    roles, plain = settings.fields_by_role(), settings.fingerprint(settings.RunConfig(), {})
    changed = {"steps": 7, "patience": 7, "scale": (0.5, 2.0), "photometric": True}
    changed |= {"decode": "reduced", "limit_validation": 7, "class_weights": (1.0, 2.0)}
    facts = {f"facts.{name}" for name in ("mean", "std", "patch", "grid", "pos_antialias")}
    named = {
        "preprocessing",
        "arithmetic",
        "fit",
        "evaluate",
        "kind",
        "classes",
        "things",
        *(f"train.{name}" for name in changed),
    }
    assert named | facts == set(settings.later_fields())
    for name, value in changed.items():
        assert roles[f"train.{name}"] == "recipe"
        assert settings.fingerprint(settings.build_config({"train": {name: value}}), {}) != plain
    assert (
        settings.fingerprint(settings.build_config({"recipe": "lpmoe_paper", "label": "mine"}), {})
        == plain
    )


def test_steps_and_patience_end_a_training(data, tmp_path):
    cpu = ["--quiet", "--set", "runtime.device=cpu"]
    done = call(arguments(data, tmp_path / "a", *cpu, "--json", "--set", "train.steps=7"))
    assert json.loads(done.stdout)["training"]["steps"] == 7
    # Scored after each epoch of 6 steps, and at the end within the next one.
    curve = pd.read_csv(only_run(tmp_path / "a") / "curve.csv")
    assert curve.dropna(subset="validation").step.tolist() == [6, 7]
    # Nothing is learnt, so no epoch is better than the first: the second is the last.
    still = ["--set", "train.lr=1e-30", "--set", "train.decoder_lr=1e-30"]
    more = ["--set", "train.epochs=5", "--set", "train.patience=1"]
    done = call(arguments(data, tmp_path / "b", *cpu, "--json", *still, *more))
    record = json.loads(done.stdout)
    assert record["training"]["steps"] == 2 * record["training"]["best_step"]
    assert record["costs"]["training_flops"] > record["costs"]["forward_flops"] > 0
