"""Names of backbones as other libraries have them, and the name that each has here."""

HUB = "hf-hub:"  # before owner/name of a repository of the Hugging Face hub


def _dinov2() -> dict[str, str]:
    found = {}
    for letter, size in {"s": "small", "b": "base", "l": "large", "g": "giant"}.items():
        plain = f"vit_{size}_patch14_dinov2.lvd142m"
        registers = f"vit_{size}_patch14_reg4_dinov2.lvd142m"
        found |= {f"dinov2_vit{letter}14": plain, f"facebook/dinov2-{size}": plain}
        found |= {f"dinov2_vit{letter}14_reg": registers}
        found |= {f"facebook/dinov2-with-registers-{size}": registers}
    return found


def _dinov3() -> dict[str, str]:
    sizes = {
        "s": "small",
        "splus": "small_plus",
        "b": "base",
        "l": "large",
        "hplus": "huge_plus",
        "7b": "7b",
    }
    found = {}
    for letter, size in sizes.items():
        for data in ("lvd1689m", "sat493m") if size in ("large", "7b") else ("lvd1689m",):
            name = f"vit_{size}_patch16_dinov3.{data}"
            found[f"facebook/dinov3-vit{letter}16-pretrain-{data}"] = name
            found.setdefault(f"dinov3_vit{letter}16", name)
    return found


def _others() -> dict[str, str]:
    found = {}
    for letter, size in {"s": "small", "b": "base"}.items():
        for patch in (16, 8):
            name = f"vit_{size}_patch{patch}_224.dino"
            found |= {f"dino_vit{letter}{patch}": name, f"facebook/dino-vit{letter}{patch}": name}
    for size, patch in (("base", 16), ("large", 16), ("huge", 14)):
        name = f"vit_{size}_patch{patch}_224.mae"
        found |= {f"mae_vit_{size}": name, f"mae_vit_{size}_patch{patch}": name}
        found |= {f"facebook/vit-mae-{size}": name}
        found |= {f"facebook/sam-vit-{size}": f"samvit_{size}_patch16.sa1b"}
        google = f"vit_{size}_patch{patch}_224.orig_in21k"
        found |= {f"google/vit-{size}-patch{patch}-224-in21k": google}
        found |= {f"vit_{size[0]}": f"sam_vit_{size[0]}"}  # as Meta's own registry has them
    for size in ("tiny", "small", "base"):
        found[f"facebook/deit-{size}-patch16-224"] = f"deit_{size}_patch16_224.fb_in1k"
        distilled = f"deit_{size}_distilled_patch16_224.fb_in1k"
        found[f"facebook/deit-{size}-distilled-patch16-224"] = distilled
    found["google/vit-base-patch16-224"] = "vit_base_patch16_224.orig_in21k_ft_in1k"
    for size in ("base", "large"):
        name = f"beit_{size}_patch16_224.in22k_ft_in22k"
        found[f"microsoft/beit-{size}-patch16-224-pt22k-ft22k"] = name
    return found


# A name elsewhere -> the same weights under their name here.
ALIASES = _dinov2() | _dinov3() | _others()


def known_as(name: str) -> str:
    """Return the name that a backbone has here.

    Args:
        name: as users type it: a name of timm or of this program, of torch.hub (`dinov2_vits14`) or
            a repository (`facebook/dinov2-small`, `timm/vit_base_patch16_224.mae`), with `hf-hub:`
            before it for any other one.

    Returns:
        The name of the same weights here; a name that is none of these as it is.
    """
    name = name.strip()
    if name.lower().startswith((HUB, "hf_hub:")):
        return HUB + name.partition(":")[2]
    return ALIASES.get(name, name.removeprefix("timm/"))
