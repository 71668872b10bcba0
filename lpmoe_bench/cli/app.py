"""The command line: parse, call one function, print."""

import sys
from typing import Annotated

import typer

from lpmoe_bench import __version__
from lpmoe_bench.cli import (
    check,
    compare,
    data,
    doctor,
    figure,
    lists,
    models,
    predict,
    report,
    run,
    score,
    sweep,
    table,
    verify,
)
from lpmoe_bench.cli.options import App
from lpmoe_bench.errors import BenchError, UsageError
from method_zoo.errors import ZooError

# Any other module that is missing is a fault of ours, and keeps its traceback.
TRAIN_PACKAGES = ("torch", "torchvision", "timm", "lightning", "safetensors", "onnx")
TRAIN_PACKAGES += ("segment_anything",)

app = App(
    no_args_is_help=True,
    # Typer's own tracebacks print the values of variables, which may be whole arrays.
    pretty_exceptions_enable=False,
    help="Train, score and compare parameter-efficient fine-tuning methods for segmentation.",
    epilog="Exit codes: 0 ok, 2 usage, 3 data, 4 some cells failed, 5 not comparable, 6 resources, "
    "7 diverged, 10 regression, 11 inconclusive, 130 interrupted (the same command resumes).",
)


def main() -> None:
    """Run the command line; an expected error is one line on stderr and its exit code."""
    try:
        app()
    except BenchError as error:
        _fail(str(error), error.exit_code)
    except ZooError as error:
        _fail(str(error), UsageError.exit_code)
    # The base install reads and scores without torch: who trains is told what to install.
    except ModuleNotFoundError as error:
        if error.name not in TRAIN_PACKAGES:
            raise
        _fail(
            f"this command needs {error.name}, which is not installed; "
            f"install it with: pip install 'lpmoe-bench[train]'",
            UsageError.exit_code,
        )


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lpmoe-bench {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Train, score and compare parameter-efficient fine-tuning methods for segmentation."""


# Registered here, so that the help has the order of this list and not that of the imports.
# Bare `run` prints its help: nobody should start to train by accident.
app.command("run", no_args_is_help=True)(run.run_command)
app.command("evaluate")(predict.evaluate_command)
app.command("predict")(predict.predict_command)
app.command("figure")(figure.figure_command)
# An older spelling, which goes with the next version.
app.command("picture", hidden=True)(figure.picture_command)
app.command("table")(table.table_command)
app.command("describe")(lists.describe_command)
app.command("doctor")(doctor.doctor_command)
app.command("publish")(lists.publish_command)
app.command("verify")(verify.verify_command)
app.command("compare")(compare.compare_command)
app.command("profile")(models.profile_command)
app.command("report")(report.report_command)
app.command("score")(score.score_command)
app.command("merge")(models.merge_command)
app.command("export")(models.export_command)
app.command("list")(lists.list_command)
app.add_typer(data.app, name="data")
app.add_typer(check.app, name="check")
app.add_typer(sweep.app, name="sweep")
