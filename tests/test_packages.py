"""What pyproject.toml asks for, what the lock of CI installs, and what is installed here."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13")
ASKED = [
    Requirement(text)
    for texts in (
        PROJECT["dependencies"],
        *(PROJECT["optional-dependencies"][extra] for extra in ("train", "dev", "docs")),
    )
    for text in texts
]


def locked(python: str) -> dict[str, Version]:
    """The versions of the lock on Linux; every entry has the SHA-256 of its files."""
    text = (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8")
    found = {}
    place = {"python_version": python, "python_full_version": f"{python}.9"}
    place |= {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        named, *hashes = entry.split("\\\n")
        assert hashes, entry
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64} ?", part) for part in hashes), entry
        exact, _, marker = named.partition(";")
        name, _, version = exact.strip().partition("==")
        if not marker.strip() or Marker(marker.strip()).evaluate(place):
            assert name not in found, f"{name} stands twice for Python {python}"
            found[name] = Version(version)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_what_pyproject_asks_for(python):
    """Else `make lock` writes it anew."""
    there = locked(python)
    for wanted in ASKED:
        name = canonicalize_name(wanted.name)
        assert name in there, f"{name} is not in .ci/constraints.txt: make lock"
        assert wanted.specifier.contains(there[name]), f"{wanted}, locked {there[name]}: make lock"
    assert {"hatchling", "editables"} <= there.keys()  # what builds the package


def test_the_oldest_torch_is_the_lower_bound_and_goes_with_its_torchvision():
    oldest = (ROOT / ".ci/oldest.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^(\w+)==(\S+)$", oldest, re.MULTILINE))
    assert pins.keys() == {"torch", "torchvision"}
    for name, version in pins.items():
        (wanted,) = [one for one in ASKED if one.name == name]
        lower = [bound.version for bound in wanted.specifier if bound.operator == ">="]
        assert Version(version) == Version(*lower)
    # Below it a file of weights can run code, whatever `weights_only` says: CVE-2025-32434.
    assert Version(pins["torch"]) >= Version("2.6")


def test_python_is_bound_as_the_tests_are():
    asked = SpecifierSet(PROJECT["requires-python"])
    assert all(asked.contains(python) for python in PYTHONS)
    assert not asked.contains("3.10")
    assert not asked.contains("3.14")  # for which scikit-image below 0.26 has no wheels
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        named = re.findall(r"python: \[(.*)\]", workflow.read_text(encoding="utf-8"))
        assert named
        assert all(re.findall(r"[\d.]+", text) == list(PYTHONS) for text in named), workflow


def test_what_is_installed_here_is_what_is_asked_for():
    for wanted in ASKED:
        if wanted.marker is None or wanted.marker.evaluate():
            try:
                version = metadata.version(wanted.name)
            except metadata.PackageNotFoundError:
                continue  # of an extra that is not installed here
            assert wanted.specifier.contains(version, prereleases=True), f"{wanted}: {version}"
