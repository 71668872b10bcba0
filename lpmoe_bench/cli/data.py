"""Commands about data sets: list, show, verify, fetch, add, generate, audit."""

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically


def data_audit_command(
    *,
    names: Annotated[list[str], typer.Argument(metavar="SET...", help="Data sets to compare.")],
    records: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of records: their scores without the test images seen."),
    ] = None,
    no_features: Annotated[
        bool, typer.Option("--no-features", help="Confirm near duplicates by pixels alone.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report as Markdown.")
    ] = None,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Find images that lie in two splits or two sets, exactly or nearly; groups apart."""
    from lpmoe_bench.analysis import clean
    from lpmoe_bench.data.audit import audit
    from lpmoe_bench.model.likeness import default_features
    from lpmoe_bench.records.store import find_records

    _folder(data_root)
    registry, cache = options.registry(datasets), options.cache_folder()
    chosen = [registry.dataset(name) for name in dict.fromkeys(names)]
    stored = find_records(records).stored if records else []
    features, why_not = None, "--no-features"
    if not no_features:
        features, why_not = default_features(cache, offline, out.terminal.say)
    found = audit.audit_sets(chosen, data_root, cache, out.terminal, features, why_not)
    scores = clean.clean_scores(stored, found)
    if out.json:
        extra = {"clean_subset": clean.clean_json(scores)} if records else {}
        out.print(audit.audit_json(found) | extra, "")
    else:
        print(audit.audit_text(found))
        protocols = {one.record.id: one.record.protocol.name for one in stored}
        if records:
            print("\n" + (clean.clean_text(scores, protocols) or "No record was tested on these."))
    if output is not None:
        write_atomically(output, audit.audit_markdown(found))


app = options.App(no_args_is_help=True, help="Data sets: what is there, where to get the rest.")
app.command("audit")(data_audit_command)

SetName = Annotated[str, typer.Argument(metavar="SET", help="Data set of the registry.")]
Replace = Annotated[bool, typer.Option("--replace", help="Put aside what is there already.")]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave broken pairs out instead of refusing all.")
]
Object = Annotated[
    str, typer.Option("--object", help="What of a mask is object: 'above 128', nonzero or #rrggbb.")
]


@app.command("list")
def data_list_command(
    *,
    task: options.Tasks = None,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """List the data sets of the field: found, partly found or missing, and how to get them."""
    from lpmoe_bench.data.library.listing import overview, set_state

    registry = options.registry(datasets)
    wanted = [registry.task(name).name for name in options.names(task)]
    chosen = [d for d in registry.datasets.values() if not wanted or d.task in wanted]
    states = [set_state(dataset, _folder(data_root)) for dataset in chosen]
    if out.json:
        out.print([state.as_json() for state in states], "")
    else:
        out.pairs(overview(states))


@app.command("show")
def data_show_command(
    *,
    name: SetName,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Say all that is known of one data set: splits, official counts, page, licence, how to get."""
    from lpmoe_bench.data.library.listing import details, set_state

    state = set_state(options.registry(datasets).dataset(name), _folder(data_root))
    if out.json:
        out.print(state.as_json(), "")
    else:
        out.pairs(details(state, data_root))


@app.command("verify")
def data_verify_command(
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SET]...", help="Data sets; all by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report as Markdown.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw a few pairs of the set with overlays: FILE.png.")
    ] = None,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Read every file of data sets: pairs, sizes, values, counts, checksum of the content."""
    from lpmoe_bench.data.library import verify
    from lpmoe_bench.data.splits import MANIFESTS

    registry, root = options.registry(datasets), _folder(data_root)
    chosen = [registry.dataset(name) for name in names or ()]
    # Without names: what is there. Sets that are missing are no failure of those that are not.
    chosen = chosen or [d for d in registry.datasets.values() if d.location(root)]
    if not chosen:
        raise DataError("no data set is found; set LPMOE_BENCH_DATA or give --data-root")
    if sheet is not None and len(chosen) > 1:
        raise UsageError(f"--sheet draws one data set, but {len(chosen)} are named")
    if sheet is not None:
        for text in verify.write_sheet(chosen[0], root, sheet):
            out.terminal.note(f"not drawn: {text}")
    cache = options.cache_folder() / MANIFESTS
    found = [v for one in chosen for v in verify.verify_set(one, root, cache, out.terminal)]
    out.print(verify.verification_json(found), verify.verification_text(found))
    if output is not None:
        write_atomically(output, verify.verification_markdown(found))
    # Behind the report, which says what to do about each of them.
    unsound = [one.label for one in found if one.problems]
    if unsound:
        raise DataError(f"{', '.join(unsound)} failed verification; see the report above")


@app.command("fetch")
def data_fetch_command(
    *,
    name: SetName,
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives afterwards.")] = False,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Download, check and unpack a data set that has direct archives; else say where to get it."""
    from lpmoe_bench.data.library.fetch import fetch_set
    from lpmoe_bench.data.library.listing import how_to_get

    dataset = options.registry(datasets).dataset(name)
    if not dataset.archives:
        raise DataError(f"{name} has no direct archive; {how_to_get(dataset)}")
    if offline:
        raise DataError(f"{name} cannot be fetched offline; {dataset.page} has it")
    added = fetch_set(
        dataset, _writable(data_root), out.terminal, replace=replace, skip=skip_broken, keep=keep
    )
    out.print(added.as_json(), added.text)


@app.command("add")
def data_add_command(
    *,
    name: SetName,
    source: Annotated[Path, typer.Argument(help="Archive (zip, tar) or folder.")],
    split: Annotated[
        str | None,
        typer.Option("--as-split", help="Take SOURCE as this split; with --images and --masks."),
    ] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the images in SOURCE.")] = None,
    masks: Annotated[str | None, typer.Option(help="... and of the masks.")] = None,
    object_: Object = "",
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Take in what you downloaded: recognise its layout, verify it, copy it to the data folder."""
    from lpmoe_bench.data.library.add import add_set, with_layout

    dataset = options.registry(datasets).dataset(name)
    dataset, root = with_layout(dataset, split, images, masks, object_), _writable(data_root)
    added = add_set(dataset, source, root, out.terminal, replace=replace, skip=skip_broken)
    out.print(added.as_json(), added.text)


@app.command("import")
def data_import_command(
    *,
    source: Annotated[Path, typer.Argument(help="Folder, or archive (zip, tar).")],
    name: Annotated[
        str, typer.Option(help="Name of the set and its task; by default that of SOURCE.")
    ] = "",
    task: Annotated[
        str, typer.Option("--task", "-t", help="Protocol, loss and selection are this task's.")
    ] = "cod",
    classes: Annotated[
        Path | None, typer.Option(help="Label maps: FILE of their classes, a name a line.")
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(help="... values that count for nothing, such as 255.")
    ] = None,
    first: Annotated[int | None, typer.Option(help="... value of the first class.")] = None,
    split: Annotated[
        float, typer.Option(help="Share to test on where the set has no test part.")
    ] = 0.2,
    skip_broken: SkipBroken = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="YAML to write; NAME.yaml by default.")
    ] = None,
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Recognise a folder or archive of your own and write its YAML entry, split without leaks."""
    from lpmoe_bench.data.library.importing import import_set, set_name

    name = set_name(name, source)
    labels = {"classes": classes, "ignore": ignore, "first": first}
    made = import_set(
        source,
        options.registry(datasets).task(task),
        output or Path(f"{name}.yaml"),
        options.cache_folder(),
        out.terminal,
        name=name,
        share=split,
        skip=skip_broken,
        root=data_root,
        labels={k: v for k, v in labels.items() if v is not None},
    )
    out.print(made.as_json(), made.text)


@app.command("convert")
def data_convert_command(
    *,
    name: Annotated[str, typer.Argument(metavar="SET", help="A data set of objects.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder.")],
    data_root: options.DataRoot = None,
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Write the objects of a data set in COCO's form: a JSON file a split, panoptic maps."""
    from lpmoe_bench.data.library.convert import convert_set

    dataset = options.registry(datasets).dataset(name)
    found = convert_set(dataset, _folder(data_root), output, out.terminal)
    out.print([one.as_json() for one in found], "\n".join(one.text for one in found))


@app.command("generate")
def data_generate_command(
    *,
    task: Annotated[str, typer.Argument(metavar="TASK", help="cod, polyp, road, ...")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder; generated_TASK by default.")
    ] = None,
    count: Annotated[int, typer.Option(help="Scenes, two of seven for the test list.")] = 224,
    side: Annotated[int, typer.Option(help="Longer side in pixels.")] = 352,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    empty: Annotated[float, typer.Option(help="Part of the scenes without any object.")] = 0.0,
    out: options.Output,
) -> None:
    """Draw scenes of a task in code: images, masks and lists in a new folder."""
    from lpmoe_bench.data.scenes.generate import generate_folder

    folder = output or Path(f"generated_{task}")
    with out.terminal.bar("drawing scenes", count) as bar:
        made = generate_folder(task, folder, count, side, seed, empty, bar.update)
    out.print({"output": str(made)}, made)


def _folder(root: Path | None) -> Path | None:
    """Return the data root; raises DataError when it is named but not there."""
    from lpmoe_bench.data.pairs import check_root

    check_root(root)
    return root


def _writable(root: Path | None) -> Path:
    """Return the data root, made where it is not there; raises DataError when none is named."""
    if root is None:
        raise DataError("no data folder is named; set LPMOE_BENCH_DATA or give --data-root")
    return root
