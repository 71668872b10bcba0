"""The published figures as they were collected, in the order of the ledger's rows."""

from pathlib import Path

import yaml

# The figures as they were collected lie beside the project's folder, where they lie at all.
PLACES = [parent / "shared" / "published" for parent in Path(__file__).parents]
COLLECTED = next((place for place in PLACES if place.is_dir()), None)


def collected(name):
    assert COLLECTED is not None
    return yaml.safe_load((COLLECTED / f"{name}.yaml").read_text(encoding="utf-8"))


def listed(rows, columns):
    """[(row, {column: figure})] of rows that are lists; nothing for a figure that is missing."""
    return [
        (row, {c: v for c, v in zip(columns, values, strict=False) if v is not None})
        for row, values in rows.items()
    ]


def by_set(block, sets, rows, metrics=("S", "E", "wF", "MAE")):
    """The same of tables {set: {row: figures}}; words beside a figure are dropped."""
    found = []
    for row in rows:
        values = {}
        for key, name in sets.items():
            for metric, figure in zip(metrics, block.get(key, {}).get(row, ()), strict=False):
                if figure is not None:
                    values[f"{name}.{metric}"] = float(str(figure).removesuffix("(typo)"))
        found.append((row, values))
    return found


def expected():
    """{table: [(row, {column: figure as collected})]}, in the order of the collection."""
    slides, peft, vfm, lpmoe = (collected(n) for n in ("conv_lora", "peft", "vfm", "lpmoe"))
    classes = slides["multi_class_trans10k_v2"]
    sets = {"CHAMELEON": "chameleon", "CAMO": "camo", "COD10K": "cod10k"}
    sam, rerun, bench = peft["sam_adapter"], peft["conv_lora_reruns"], peft["v_petl_bench"]
    prompts = rerun[0]["with_point_prompts_not_comparable"]
    memory, full = peft["memory_and_speed_reports"], vfm["not_peft_full_tuning"]
    coco, panoptic = vfm["coco_maskrcnn_1x_parax"], vfm["coco_panoptic_fpn_1x_parax"]
    backbones = ("swin_b", "swin_l", "convnext_b", "convnext_l")
    mona = peft["mona"]["ade20k_mIoU_coco_boxAP"] | peft["mona"]["read_off_figure_approx"]
    return {
        "conv_lora": [(row, block["scores"]) for row, block in slides["binary"].items()],
        "conv_lora_trans10k": [
            (r, {f"trans10k_v2.{k}": v for k, v in b.items() if k not in ("params_M", "ratio_pct")})
            for r, b in classes.items()
        ],
        "conv_lora_linear_probe": [
            ("vit", {"imagenet.accuracy": v})
            for v in slides["linear_probe_imagenet_vit_b"].values()
        ],
        "sam_adapter": by_set(sam, sets, sam["CAMO"]),
        "sam_adapter_shadow": [(row, {"istd.BER": v}) for row, v in sam["ISTD_BER"].items()],
        "sam3_adapter_issue_133": [
            (
                "sam_adapter",
                {f"kvasir.{k}": sam["user_reproduction"][1][f"m{k}"] for k in ("Dice", "IoU")},
            )
        ],
        "clip_guided_sam": by_set(rerun[0], sets, rerun[0]["CAMO"]),
        "clip_guided_sam_prompts": by_set(prompts, sets, prompts["CHAMELEON"]),
        "conv_lora_user_run": [
            ("conv_lora", {f"isic2017.{k}": v for k, v in rerun[3]["conv_lora"].items()})
        ],
        "v_petl_bench_swin_l": listed(
            bench["ade20k_swinL_upernet"], ("", "voc.memory", "voc.APb", "ade20k.mIoU")
        ),
        "v_petl_bench_coco": listed(
            bench["coco_swinB_cascade"], ("", "coco.memory", "coco.APb", "coco.APm")
        ),
        "v_petl_bench_vtab": listed(
            bench["vtab1k_vitB_mean_params"], ("vtab1k.accuracy", "", "vtab1k.PPT")
        ),
        "v_petl_bench_fgvc": listed(bench["fgvc_vitB_mean_params"], ("fgvc.accuracy",)),
        "mona": [
            (row, values | ({"coco_test_dev.APm": 46.0} if row == "mona" else {}))
            for row, values in listed(mona, ("ade20k.mIoU", "coco_test_dev.APb"))
        ],
        "parax_ade20k": [
            (row, {"ade20k.mIoU": v["miou"]})
            for b in backbones
            for row, v in vfm["ade20k_upernet_parax"][b].items()
        ],
        "parax_coco": [
            one
            for b in backbones
            for one in listed(coco[b], ["", *(f"coco.{c}" for c in coco["columns"][1:])])
        ],
        "parax_panoptic": [
            one
            for b in backbones
            for one in listed(
                panoptic[b], ["", *(f"coco_panoptic.{c}" for c in panoptic["columns"][1:])]
            )
        ],
        "rein": [
            ("rein", {f"driving.{k}": v for k, v in vfm["rein"]["miou"].items()}),
            *(
                ("rein", {"driving.gta_to_cityscapes": v})
                for v in vfm["rein"]["other_backbones_gta_to_cityscapes"].values()
            ),
        ],
        "vit_adapter": dense(full["vit_adapter"], "coco_maskrcnn_3x_ms"),
        "vit_comer": dense(full["vit_comer"], "coco_maskrcnn_dinov2"),
        "vit_adapter_segmentation": [
            ("vit_adapter", {"ade20k.single": one["miou_ss"], "ade20k.multi": one["miou_ms"]})
            for one in lpmoe["parent_method_viT_adapter"]
        ],
        "lpmoe_code": [
            (
                "controllable",
                {f"any.{k}": one[k] for k in ("adapter", "head", "trainable", "frozen")}
                | {"any.share": 100 * one["fraction_of_all"]},
            )
            for one in lpmoe["code_derived"]
        ],
        "micro_sam_memory": [
            (row, {"livecell.vit_h": v, "livecell.smaller": memory[0]["smaller_vit_GB"][row]})
            for row, v in memory[0]["sam_vit_h_GB"].items()
        ],
        "micro_sam_late_lora": [
            ("late", {"livecell.memory": v})
            for v in memory[1]["late_lora_blocks_6_11_MiB"].values()
        ],
        "peft_dora_time": [
            (row, {"peft.eval": a, "peft.train": b})
            for row, a, b in zip(
                ("dora", "lora"), *memory[3]["dora_vs_lora_sec"].values(), strict=True
            )
        ],
        "peft_dora_run": [
            (row, {"peft.train": v, "peft.memory": memory[5]["mem_MB"][row]})
            for row, v in memory[5]["train_s"].items()
        ],
        "adaptformer_issue_36": [
            (row, {"adaptformer.epoch": v, "adaptformer.memory": memory[6]["ram_GB"][row]})
            for row, v in memory[6]["epoch_min"].items()
        ],
        "saved_activations": [
            ("", {"activations.saved": v}) for v in memory[7]["saved_activation_MiB"].values()
        ],
    }


def dense(block, coco):
    """Rows of a method on several backbones, which some tables lack."""
    one, other = block["ade20k_upernet_miou_ss"], block[coco]
    rows = []
    for row in dict.fromkeys([*one, *other]):
        values = {"ade20k.mIoU": one[row]} if row in one else {}
        values |= dict(zip(("coco.APb", "coco.APm"), other.get(row, ()), strict=False))
        rows.append(("vit", values))
    return rows


def letters(text):
    return "".join(filter(str.isalnum, text.lower()))
