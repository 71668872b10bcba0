"""Time of a training step of our LoRA divided by that of Hugging Face peft's on the same timm ViT.

Both have the same weights, the same A and B on the fused qkv layers (rank 8), the same images and
AdamW; outputs and gradients are checked equal before anything is timed. "alone": the loss is the
mean of the last tokens, each times a drawn number. "with decoder and loss": four normed maps, the
decoder of all methods and the structure loss. The bound is what no method of this kind can be
below: the forward pass and the gradient of the tokens that enter block 0, with every weight frozen
(and, with decoder and loss, the decoder's own training). "forward" is the frozen backbone's forward
pass without gradients. All take turns in this process on one thread; ratios are medians over
rounds.

    python benchmarks/lora_step.py [--json] [--rounds 9] [--backbone NAME] [--size 256] [--batch 4]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import timm
import torch
from in_turns import in_turns, median, multiple, ratio
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lpmoe_bench.environment import collect_environment
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.segmenter import Segmenter
from method_zoo import (
    Backbone,
    Features,
    Method,
    ZooError,
    check_backbone_name,
    create_backbone,
    get_method,
)

RANK = ALPHA = 8
ALONE, WHOLE = "alone", "with decoder and loss"


class Peft(nn.Module):
    """The timm model as peft's users have it, with the maps that a decoder reads."""

    def __init__(self, backbone: Backbone, name: str, size: int, method: Method):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its libraries say while they are imported
            from peft import LoraConfig, get_peft_model

        vit = timm.create_model(name, pretrained=False, num_classes=0, img_size=size)
        vit.load_state_dict(backbone.state())
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=["qkv"])
        self.vit: Any = get_peft_model(vit, config).base_model.model
        self.ends = [group[-1] for group in backbone.groups]
        self.normalise = backbone.normalise
        # What the maps of others' methods are checked by.
        self.channels, self.strides = method.channels, method.strides
        facts = {"strides": backbone.strides, "neck_channels": backbone.neck_channels}
        self.backbone = SimpleNamespace(**facts)
        for own, block in zip(lora_layers(method), self.vit.blocks, strict=True):
            block.attn.qkv.lora_A.default.weight.data.copy_(own.a)
            block.attn.qkv.lora_B.default.weight.data.copy_(own.b)

    def forward(self, image: Tensor) -> Features:
        maps = self.vit.forward_intermediates(
            self.normalise(image), indices=self.ends, norm=True, intermediates_only=True
        )
        return Features(maps, maps[-1], image.new_zeros(()))

    def tokens(self, image: Tensor) -> Tensor:
        return self.vit.forward_features(self.normalise(image))


def lora_layers(method: nn.Module) -> list[Any]:
    return [m for m in method.modules() if hasattr(m, "a") and hasattr(m, "b")]


class Frozen(Method):
    """The backbone alone, whose tokens at block 0 want a gradient: forward and input gradients."""

    title = "bound"

    def forward(self, image: Tensor) -> Features:
        with torch.no_grad():
            t = self.backbone.embed(image)
        t = t._replace(x=t.x.requires_grad_())
        taps = []
        for group in self.backbone.groups:
            for i in group:
                t = self.backbone.block(i, t)
            taps.append(self.backbone.norm(t).map())
        return Features(taps, taps[-1], t.aux)


def ours_tokens(method: Method, image: Tensor) -> Tensor:
    """The last tokens alone, through the loop that all methods have."""
    t = method.backbone.embed(image)
    for i in range(method.backbone.depth):
        t = method.step(i, t)
    return method.backbone.norm(t).x


def frozen_tokens(backbone: Backbone, image: Tensor, gradients: bool) -> Tensor:
    with torch.no_grad():
        t = backbone.embed(image)
    with torch.set_grad_enabled(gradients):
        t = t._replace(x=t.x.requires_grad_(gradients))
        for i in range(backbone.depth):
            t = backbone.block(i, t)
        return backbone.norm(t).x


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return a training step: forward, loss, backward, AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3) if trained else None

    def step() -> Tensor:
        value = loss()
        value.backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return value

    return step


def check_equal(ours: nn.Module, theirs: nn.Module, loss_ours: Tensor, loss_theirs: Tensor) -> None:
    """Raise where a loss or a gradient of A and B differs by more than rounding."""
    torch.testing.assert_close(loss_ours, loss_theirs, atol=1e-6, rtol=1e-4)
    loss_ours.backward(), loss_theirs.backward()
    ours_all = [t.grad for m in lora_layers(ours) for t in (m.a, m.b)]
    theirs_all = [p.grad for n, p in theirs.named_parameters() if "lora_" in n]
    for one, other in zip(ours_all, theirs_all, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, atol=1e-3 * float(one.abs().max()), rtol=1e-3)
    for model in (ours, theirs):
        model.zero_grad(set_to_none=True)


def measure(name: str, size: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row of seconds and ratios alone, and one with decoder and loss."""
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def fresh() -> Backbone:
        backbone = create_backbone(name, img_size=size)
        backbone.reset(0)
        return backbone

    method = get_method("lora")(fresh(), rank=RANK, alpha=ALPHA).train()  # type: ignore[call-arg]
    for layer in lora_layers(method):
        nn.init.normal_(layer.b, std=0.02)  # zero would leave A without gradient to compare
    theirs = Peft(fresh(), name, size, method).train()
    bound, frozen = Frozen(fresh()), fresh()
    images = torch.rand(batch, 3, size, size)
    masks = (images.mean(1, keepdim=True) > 0.5).float()

    # Not their mean square: behind the last norm that is one, and every gradient only rounding.
    drawn = torch.randn_like(frozen_tokens(frozen, images, gradients=False))

    def weighted(tokens: Tensor) -> Tensor:
        return (tokens * drawn).mean()

    rows = []
    # Alone first: a step changes the weights of both alike, and the next check would see it.
    alone = {
        "forward": lambda: frozen_tokens(frozen, images, gradients=False),
        "bound": stepper(bound, lambda: weighted(frozen_tokens(frozen, images, gradients=True))),
        "ours": stepper(method, lambda: weighted(ours_tokens(method, images))),
        "peft": stepper(theirs, lambda: weighted(theirs.tokens(images))),
    }
    check_equal(
        method, theirs, weighted(ours_tokens(method, images)), weighted(theirs.tokens(images))
    )
    rows.append(row(ALONE, in_turns(alone, rounds)))

    def segmenter(model: Any) -> Segmenter:
        torch.manual_seed(1)
        decoder = build_decoder(method.decoder, method, classes=1)
        decoder.train_with("structure")
        return Segmenter(model, decoder).train()

    def loss(model: Segmenter) -> Tensor:
        return model(images, masks)

    models = {"bound": segmenter(bound), "ours": segmenter(method), "peft": segmenter(theirs)}
    for own, block in zip(lora_layers(method), theirs.vit.blocks, strict=True):
        block.attn.qkv.lora_A.default.weight.data.copy_(own.a)
        block.attn.qkv.lora_B.default.weight.data.copy_(own.b)
    check_equal(models["ours"], models["peft"], loss(models["ours"]), loss(models["peft"]))
    whole: dict[str, Callable[[], object]] = {"forward": alone["forward"]}
    for key, model in models.items():
        whole[key] = stepper(model, lambda model=model: loss(model))
    rows.append(row(WHOLE, in_turns(whole, rounds)))
    return rows


def row(case: str, times: dict[str, list[float]]) -> dict[str, Any]:
    pairs = [("ours", "peft"), ("ours", "forward"), ("peft", "forward"), ("bound", "forward")]
    pairs.append(("ours", "bound"))
    ratios = {f"{over}/{under}": ratio(times, over, under) for over, under in pairs}
    return {"case": case, "seconds": median(times), "ratios": ratios}


def table(rows: list[dict[str, Any]], title: str) -> Table:
    out = Table(title=title)
    out.add_column("step", no_wrap=True)
    for name in [*(f"{key} s" for key in rows[0]["seconds"]), *rows[0]["ratios"]]:
        out.add_column(name, justify="right", no_wrap=True)
    for one in rows:
        times = [f"{value:.3f}" for value in one["seconds"].values()]
        ratios = [f"[bold]{value:.3f}[/]" for value in one["ratios"].values()]
        out.add_row(one["case"], *times, *ratios)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="vit_small_patch16_224", help="a plain ViT of timm")
    parser.add_argument("--size", type=multiple(32), default=256, help="pixels a side")
    parser.add_argument("--batch", type=multiple(1), default=4)
    parser.add_argument("--rounds", type=multiple(1), default=9)
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    try:
        check_backbone_name(args.backbone)
    except ZooError as error:
        parser.error(str(error))
    rows = measure(args.backbone, args.size, args.batch, args.rounds)
    facts = {"backbone": args.backbone, "size": args.size, "batch": args.batch, "rank": RANK}
    if args.json:
        here = {"torch": torch.__version__, "threads": 1, "cpu": collect_environment("cpu").cpu}
        print(json.dumps(here | facts | {"rounds": args.rounds, "rows": rows}, indent=1))
        return
    console = Console()
    console.width = max(console.width, 140)
    console.print(table(rows, f"LoRA step, {args.backbone}, {args.size} px, batch {args.batch}"))


if __name__ == "__main__":
    main()
