"""Plug-ins of others as tests need them: texts of files, and a package that seems installed."""

from pathlib import Path
from string import Template

from lpmoe_bench.model.template import METHOD

GAIN = Template(METHOD).substitute(cls="Gain")  # what `new method` writes: a sound one
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


# What a method gives that is not what it has to give: {name: what stands in its class}.
WRONG = {
    "tokens": """
    def block(self, i, t):
        t = self.backbone.block(i, t)
        return t._replace(x=t.x[:, 1:] * self.scale[i]) if i == self.backbone.depth - 1 else t
""",
    "plain": """
    def block(self, i, t):
        return self.backbone.block(i, t).x
""",
    "nothing": """
    def forward(self, image):
        super().forward(image)
""",
    "pair": """
    def forward(self, image):
        features = super().forward(image)
        return features.maps, features.final
""",
    "maps": """
    def forward(self, image):
        features = super().forward(image)
        return features._replace(maps=features.maps[:3])
""",
    "small": """
    def forward(self, image):
        features = super().forward(image)
        return features._replace(maps=[m[:, :, 1:] for m in features.maps])
""",
    "final": """
    def forward(self, image):
        features = super().forward(image)
        return features._replace(final=features.final[:, 1:])
""",
    "aux": """
    def forward(self, image):
        features = super().forward(image)
        return features._replace(aux=features.aux[None])
""",
}


def write_wrong(folder: Path, name: str) -> Path:
    """Write a method that is sound but for what it gives."""
    return write_file(folder, name, GAIN.partition("    def block")[0] + WRONG[name].lstrip("\n"))
