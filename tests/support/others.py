"""Plug-ins of others as tests need them: texts of files, and a package that seems installed."""

from pathlib import Path

GAIN = '''"""Gain: a scale for each channel. An example."""
import torch
from torch import nn

from method_zoo import Backbone, Method, Tokens


class Gain(Method):
    """share: one gain for all blocks."""

    title = "Gain"
    fidelity = "an example"

    def __init__(self, backbone: Backbone, share: bool = False):
        super().__init__(backbone)
        self.gain = nn.Parameter(torch.ones(1 if share else backbone.depth, backbone.dim))

    def block(self, i: int, t: Tokens) -> Tokens:
        gain = self.gain[min(i, len(self.gain) - 1)]
        return self.backbone.block(i, t._replace(x=t.x * gain))
'''
MIX = '''"""Mix: a decoder and a loss in one file."""
import torch
from torch import nn

from lpmoe_bench.model.decoders.decoder import Decoder, Inputs


class Mix(Decoder):
    title = "Mix"
    reads = "maps"

    def __init__(self, inputs: Inputs, classes: int, kernel: int = 1):
        super().__init__()
        self.logits = nn.Conv2d(inputs.channels[0], classes, kernel, padding=kernel // 2)

    def forward(self, features):
        return self.logits(torch.stack(features.maps).mean(dim=0))


def absolute(logits, mask, counted=None):
    each = (logits.sigmoid() - mask).abs()
    return each.mean() if counted is None else (each * counted).sum() / counted.sum()


def no_scalar(logits, mask, counted=None):
    return logits - mask


LOSSES = {"absolute": absolute, "no_scalar": no_scalar}
'''


def write_file(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def install(site: Path, name: str, entry_points: str, **modules: str) -> Path:
    """Write a package with its metadata, as pip leaves it; `site` goes to sys.path."""
    about = site / f"{name}-1.2.dist-info"
    (site / name).mkdir(parents=True)
    about.mkdir()
    (site / name / "__init__.py").write_text("")
    for module, text in modules.items():
        (site / name / f"{module}.py").write_text(text)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(entry_points)
    return site
