"""What must stay the same while modules move: outputs of the command line, recorded and compared.

    python tests/guard.py record [--only PART ...]     # today's outputs to tests/golden/guard
    python tests/guard.py compare [--only PART ...]    # exit code 1 and a diff where one differs

It starts `python -m lpmoe_bench` and imports nothing of it. Standard output counts byte for byte,
less dates, versions, speeds and folders; help texts and standard error do not count. Where
processor or packages are others than at the recording, numbers may differ by a part's tolerance.
"""

import argparse
import hashlib
import html
import json
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from guard_texts import close, diff, html_cells, latex_cells, markdown_cells, records

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "guard"
MACHINE = "machine.json"
SKIPPED = "LPMOE_BENCH_DATA names no folder of the real sets"
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "numba", "torch", "timm")
SEEDS = "results/records/cod/lora/dinov2_small_imgfocus/41d3b80aaace-s"

TABLES = {
    "all": "",
    "every_column": "--method lora --method lpmoe --group task --metrics all --columns all",
    "verdicts": "--only train.limit_train=150 --group all --sort s_measure --against decoder_only",
    "published": "--only train.limit_train=200 --method lora --method lpmoe --group task "
    "--published",
    "source": "--source conv_lora",
    "speeds": "--only train.limit_train=200 --test-set camo/test --columns all --across decoder "
    "--speeds results/speed/cpu.json",
}
PAIRS = {
    "lora_decoder": "41d3b80aaace 84d0a33ab675",
    "lpmoe_conv_lora": "f3dbfb4fb25f 11c628e988bc --margin 0.02",
    "polyp": "fa21e2188703 45541097b0c3 --metrics dice_mean256,iou,mae",
    "one_seed": "ae117eba113a 80a9afa4f5cf",
    "maps": "531f3c024462 84d0a33ab675",
    "not_comparable": "e1099c059166 41d3b80aaace",
}
CHECKS = {
    "records": "check results/records --baseline results/baseline.json",
    "pass": f"check {SEEDS}2 --baseline pin.json",
    "regressed": f"check {SEEDS}2 --baseline pin.json --cap 0.001 --floor 0",
    "other_level": f"check {SEEDS}1 {SEEDS}2 --baseline pin.json --level 0.5 --strict",
    "explain": f"explain {SEEDS}2 --baseline pin.json --cell camo --level 0.2",
    "explain_mae": f"explain {SEEDS}2 --baseline pin.json --cell mini62 --metric mae --cap 0.002",
}
SCORES = {name: f"--protocol {name}" for name in ("sod", "polyp_pranet", "shadow_sbu", "medical")}
SCORES |= {"extra": "--protocol cod --extra hd95", "vary": "--protocol cod --vary --force"}
MODELS = {
    "lora": "--size 256 --set rank=4",
    "lpmoe": "--size 256 --decoder mask2former",
    "vpt": "--size 224 --backbone vit_base_patch16_224.augreg_in21k --decoder linear",
    "conv_lora": "--size 512 --backbone samvit_base_patch16.sa1b --decoder sam",
    "adaptformer": "--size 256",
}
KINDS = "methods tasks datasets backbones decoders protocols published runs recipes"
NAMES = "cod polyp_pranet camo dinov2_small_imgfocus hd95 s_measure lpmoe_paper"
BUILT = "lora lpmoe fpn"  # described from code that needs torch
LISTS = {f"list_{kind}": f"list {kind} --json" for kind in KINDS.split()}
LISTS |= {f"describe_{name}": f"describe {name} --json" for name in NAMES.split()}
LISTS |= {
    "data_list_cod": "data list --json --task cod",
    "data_list_skin": "data list --json --task skin",
    "data_list_own": "data list --json --task tiny --datasets own.yaml --data-root drawn",
    "data_show": "data show ham10000_small --json",
}
TINY = (
    "--backbone vit_tiny_patch16_224 --weights random:3 --size 64 --set train.batch=4 "
    "--set train.epochs=1 --set decoder.width=8 --set runtime.device=cpu --offline --json --quiet"
)
REGISTRY = """
tasks:
  tiny: {title: Discs, protocol: cod, loss: structure, select: s_measure,
         train: [tiny_train/all], test: [tiny_test/all]}
datasets:
  tiny_train: {title: Discs, task: tiny, folder: train}
  tiny_test: {title: Discs, task: tiny, folder: test}
"""


@dataclass
class Lab:
    """A folder in which commands run, and what they said on standard error."""

    folder: Path
    said: dict[str, str] = field(default_factory=dict)

    def env(self, data: bool = False) -> dict[str, str]:
        """No accelerator, one thread, no settings of this shell and no real sets unless asked."""
        dropped = ("LPMOE_BENCH_", "GITHUB_", "COLUMNS", "FORCE_COLOR", "LOCAL_RANK")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        if data:
            kept["LPMOE_BENCH_DATA"] = str(Path(os.environ["LPMOE_BENCH_DATA"]).resolve())
        kept |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        return kept | {"LPMOE_BENCH_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}

    def run(self, name: str, command: str) -> str:
        """Run a command line; return its output, with the exit code where that is not 0."""
        program = [sys.executable, "-m", "lpmoe_bench", *shlex.split(command)]
        done = subprocess.run(program, cwd=self.folder, capture_output=True, env=self.env())
        self.said[name] = done.stderr.decode()[-2000:]
        text = done.stdout.decode().replace(str(self.folder), "<folder>")
        return text + (f"exit code {done.returncode}\n" if done.returncode else "")

    def text(self, *names: str) -> str:
        """Return what a command wrote to a file; nothing where it did not, which differs too."""
        path = self.folder.joinpath(*names)
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def run_all(self, commands: dict[str, str]) -> dict[str, str]:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return dict(zip(commands, pool.map(self.run, commands, commands.values()), strict=True))


def draw(folder: Path) -> None:
    """Draw discs on noise to train and to test on, and maps of two programs, one map empty."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[:60, :80]

    def save(kind: str, k: int, image: np.ndarray) -> None:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / f"{k:03}.bmp"), image.clip(0, 255).astype(np.uint8))

    for part, count in (("train", 24), ("test", 6)):
        for k in range(count):
            mask = (x - random.integers(20, 60)) ** 2 + (y - random.integers(20, 40)) ** 2 < 196
            save(f"{part}/images", k, random.integers(0, 120, (60, 80, 3)) + 100 * mask[..., None])
            save(f"{part}/masks", k, 255 * mask)
            if part == "test":
                noise = random.normal(0, 60, (2, *mask.shape))
                save("maps/Sharp", k, 150 * mask + noise[0] * (k != 3))
                save("maps/Late", k, 110 * np.roll(mask, 5, axis=1) + 40 + noise[1])


def fingerprints(lab: Lab) -> dict[str, str]:
    """The test that recomputes them runs, wherever it is; maps of others have none to recompute."""
    name = "test_published_fingerprints_stay"
    homes = [p for p in (ROOT / "tests").rglob("test_*.py") if f"def {name}(" in p.read_text()]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *homes, "-k", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lab.said["recomputed"] = done.stdout[-2000:]
    recomputed = re.findall(r"\d+ (?:passed|failed|error\w*)", done.stdout)
    lines = []
    for path in sorted((ROOT / "results" / "records").rglob("run.json")):
        stored = json.loads(path.read_text())["fingerprint"]
        lines.append(f"{stored} {path.parent.relative_to(ROOT).as_posix()}\n")
    return {"recomputed": ", ".join(recomputed) + "\n", "stored": "".join(lines)}


def scored(lab: Lab) -> dict[str, str]:
    """Fingerprints and scores of the published maps, drawn again where the real sets are."""
    if "LPMOE_BENCH_DATA" not in os.environ:
        return {}

    def again(task: str) -> str:
        draws = [ROOT / "benchmarks" / "grabcut_maps.py", lab.folder / task, "--task", task]
        subprocess.run([sys.executable, *draws], check=True, capture_output=True, env=lab.env(True))
        root = shlex.quote(lab.env(True)["LPMOE_BENCH_DATA"])
        more = f"--name GrabCut --runs again --json --data-root {root}"
        return records(lab.run(task, f"score {task} --task {task} {more}"))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(("cod", "polyp"), pool.map(again, ("cod", "polyp")), strict=True))


def csv(lab: Lab) -> dict[str, str]:
    return lab.run_all({k: f"table results/records --format csv {v}" for k, v in TABLES.items()})


def pages(lab: Lab) -> dict[str, str]:
    """Markdown, LaTeX and HTML as captions and cells; LaTeX compiles where there is a compiler."""
    readers = {"markdown": markdown_cells, "latex": latex_cells, "html": html_cells}
    names = [k for k in TABLES if k not in ("all", "every_column")]
    table = "table results/records --format"
    raw = lab.run_all({f"{k}.{f}": f"{table} {f} {TABLES[k]}" for k in names for f in readers})
    latex = "\\clearpage\n".join(raw[f"{k}.latex"] for k in names)
    head = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (lab.folder / "t.tex").write_text(head + latex + "\\end{document}\n", encoding="utf-8")
    if compiler := shutil.which("pdflatex"):
        command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        done = subprocess.run(command, cwd=lab.folder, capture_output=True)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    else:
        print("pages: LaTeX was not compiled, there is no pdflatex here")
    return {k: "\n".join(readers[k.split(".")[1]](text)) + "\n" for k, text in raw.items()}


def compare_methods(lab: Lab) -> dict[str, str]:
    return lab.run_all({k: f"compare {v} --root results/records --json" for k, v in PAIRS.items()})


def check(lab: Lab) -> dict[str, str]:
    said = {"pin": lab.run("pin", f"check pin {SEEDS}0 {SEEDS}1 --baseline pin.json")}
    said["pin.json"] = records(lab.text("pin.json"))
    return said | lab.run_all({name: f"check {more} --json" for name, more in CHECKS.items()})


def score(lab: Lab) -> dict[str, str]:
    command = "score maps/Sharp maps/Late --gt test/masks --jobs 1 --json --runs scored"
    said = {k: records(lab.run(k, f"{command}/{k} {v}")) for k, v in SCORES.items()}
    for path in sorted((lab.folder / "scored" / "extra").rglob("per_image.csv")):
        said[f"per_image_{path.parent.parent.name}"] = path.read_text(encoding="utf-8")
    return said


def models(lab: Lab) -> dict[str, str]:
    profile = "profile --count-only --json --method"
    said = {name: f"{profile} {name} {more}" for name, more in MODELS.items()}
    said |= {f"describe_{name}": f"describe {name} --json" for name in BUILT.split()}
    return lab.run_all(said | {"budgets": "profile --budget-table --format json"})


def lists(lab: Lab) -> dict[str, str]:
    return lab.run_all(LISTS)


def sweep(lab: Lab) -> dict[str, str]:
    where = "--tasks tiny --datasets own.yaml --data-root drawn"
    cells = "--methods lora,vpt,decoder_only --seeds 0,1 --set lora.rank=4"
    plan = lab.run("plan", f"sweep {cells} {where} --runs planned --dry-run {TINY}")
    # Its own name is hashed from the folder of the data too.
    return {"plan": re.sub(r'("id": "|sweeps/)[0-9a-f]{12}"', r'\1<id>"', plan)}


def report(lab: Lab) -> dict[str, str]:
    """Rows of the page's tables by what stands first in them and a digest, and its sentences."""
    one = "report results/records --only train.limit_train=150"
    lab.run("cells", f"{one} --no-images -o page")
    page = lab.text("page", "index.html")
    rows = [
        f"{hashlib.sha256(row.encode()).hexdigest()[:16]} {row[:70].rstrip()}"
        for row in html_cells(page)
    ]
    said = re.findall(r"<(h[1-4]|figcaption|p|li)\b[^>]*>(.*?)</\1>", page, re.DOTALL)
    # Which names find room in a plot depends on fonts and on the version of matplotlib.
    gone = re.compile("<[^>]*>|No room for [^:]*: point at a dot to see it[.]")
    plain = (gone.sub("", text) for _, text in said)
    lines = [" ".join(html.unescape(text).split()) for text in plain]
    return {"cells": "\n".join(rows) + "\n", "sentences": "\n".join(lines) + "\n"}


def run(lab: Lab, method: str) -> dict[str, str]:
    """Six steps on the processor: the record, scores of every image, the curve, the tensors."""
    from safetensors import safe_open

    folders = " ".join(f"--{p}-{k} {p}/{k}" for p in ("train", "test") for k in ("images", "masks"))
    command = f"run --method {method} {folders} --runs runs {TINY}"
    said = {"record": records(lab.run("record", command))}
    for path in (lab.folder / "runs").rglob("adapter.safetensors"):
        for name in ("per_image", "curve"):
            text = (path.parent / f"{name}.csv").read_text(encoding="utf-8")
            cut = r",[^,\n]*$" if name == "curve" else r"$^"  # the last column is a speed
            said[name] = re.sub(cut, "", text, flags=re.MULTILINE)
        file = safe_open(path, "np")
        lines = [f"{key}: {value}\n" for key, value in sorted(file.metadata().items())]
        for name in sorted(file.keys()):
            x = file.get_tensor(name)
            bits = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:8]
            size = float(np.abs(x.astype(np.float64)).mean())
            lines.append(f"{name} {x.dtype} {list(x.shape)} bits:{bits} mean {size:.9e}\n")
        said["tensors"] = "".join(lines)
    return said


@dataclass(frozen=True)
class Part:
    """What makes the outputs, and how far numbers may be off on another machine.

    same: how far on machines of one kind, where integrals of verdicts move in their last digit.
    """

    make: Callable[[Lab], dict[str, str]]
    off: float = 1e-9  # sums in another order; trainings move further, that of batch norms most
    slow: bool = False
    same: float = 0.0


PARTS = {
    "fingerprints": Part(fingerprints, slow=True),  # pytest runs that test by itself
    "scored": Part(scored, slow=True),
    "csv": Part(csv, same=1e-12),
    "pages": Part(pages),
    "compare": Part(compare_methods),
    "check": Part(check),
    "score": Part(score),
    "models": Part(models, slow=True),
    "lists": Part(lists, slow=True),
    "sweep": Part(sweep, slow=True),
    "report": Part(report),
    "run_lora": Part(partial(run, method="lora"), off=1e-3, slow=True),
    "run_lpmoe": Part(partial(run, method="lpmoe"), off=5e-2, slow=True),
}


def machine() -> dict[str, str]:
    """The processor and the packages that do arithmetic."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    cpu = [re.search(rf"^{k}\s*: (.*)$", text, re.M) for k in ("model name", "cpu family", "model")]
    name = " ".join(found[1] for found in cpu if found) or platform.processor()
    return {"cpu": name} | {package: version(package) for package in PACKAGES}


def make(part: str, folder: Path) -> tuple[dict[str, str], Lab]:
    """Run a part in a folder of its own."""
    (folder / "drawn").mkdir()
    draw(folder / "drawn")
    for name in ("train", "test", "maps"):
        (folder / name).symlink_to(folder / "drawn" / name)
    (folder / "own.yaml").write_text(REGISTRY)
    (folder / "results").symlink_to(ROOT / "results")
    lab = Lab(folder)
    return PARTS[part].make(lab), lab


def record(part: str, folder: Path) -> list[str]:
    made, _ = make(part, folder)
    if not made:
        return [f"{part}: left as it is, for {SKIPPED}"]
    shutil.rmtree(GOLDEN / part, ignore_errors=True)
    (GOLDEN / part).mkdir(parents=True)
    for name, text in made.items():
        (GOLDEN / part / f"{name}.txt").write_bytes(text.encode())
    return [f"{part}: recorded {len(made)} outputs"]


def compare(part: str, folder: Path) -> tuple[list[str], bool]:
    """Return what to say of a part, and whether it is as it was recorded."""
    made, lab = make(part, folder)
    if not made:
        return [f"{part}: skipped, for {SKIPPED}"], True
    stored = {p.stem: p.read_bytes().decode() for p in sorted((GOLDEN / part).glob("*.txt"))}
    here = machine()
    then = json.loads((GOLDEN / MACHINE).read_text())
    off = PARTS[part].same if here == then else PARTS[part].off
    lines = [f"{part}: not recorded: {name}" for name in made.keys() - stored.keys()]
    lines += [f"{part}: gone: {name}" for name in stored.keys() - made.keys()]
    near = 0
    for name in sorted(stored.keys() & made.keys()):
        if stored[name] == made[name]:
            continue
        if off and close(stored[name], made[name], off):
            near += 1
            continue
        lines += [f"{part}: {name} differs", *diff(stored[name], made[name])]
        if said := lab.said.get(name, "").strip():
            lines.append("  standard error: " + said[-400:])
    if lines:
        return lines, False
    how = f"{near} of them only within {off:g}, as machines may differ" if near else "bit by bit"
    return [f"{part}: {len(made)} outputs are equal, {how}"], True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    if asked.what == "record":
        GOLDEN.mkdir(parents=True, exist_ok=True)
        (GOLDEN / MACHINE).write_text(json.dumps(machine(), indent=1) + "\n")
    good = True
    for part in asked.only:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as folder:
            if asked.what == "record":
                lines, fine = record(part, Path(folder)), True
            else:
                lines, fine = compare(part, Path(folder))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        lines[0] += f" ({spent:.0f} s of CPU)"
        print("\n".join(lines), flush=True)
        good &= fine
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
