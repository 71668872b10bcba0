"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys

import typer

from lpmoe_bench.commands import check as cli_check
from lpmoe_bench.commands import compare as cli_compare
from lpmoe_bench.commands import data as cli_data
from lpmoe_bench.commands import evaluate as cli_evaluate
from lpmoe_bench.commands import merge as cli_merge
from lpmoe_bench.commands import predict as cli_predict
from lpmoe_bench.commands import profile as cli_profile
from lpmoe_bench.commands import read as cli_read
from lpmoe_bench.commands import report as cli_report
from lpmoe_bench.commands import run as cli_run
from lpmoe_bench.commands import score as cli_score
from lpmoe_bench.commands import sweep as cli_sweep
from lpmoe_bench.commands import table as cli_table
from lpmoe_bench.errors import BenchError, UsageError

TRAIN_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "safetensors",
    "onnx",
    "segment_anything",
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, score and compare parameter-efficient fine-tuning methods for segmentation.",
    epilog="Exit codes: 0 ok, 2 usage, 3 data, 4 some cells failed, 5 not comparable, 6 resources, "
    "7 diverged, 10 regression, 11 inconclusive, 130 interrupted (the same command resumes).",
)


def main() -> None:
    """Run the command line; an expected error is one line on stderr and its exit code."""
    from method_zoo import ZooError

    try:
        app()
    except BenchError as error:
        _fail(str(error), error.exit_code)
    except ZooError as error:
        _fail(str(error), UsageError.exit_code)
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


app.command()(cli_run.run)
app.command()(cli_evaluate.evaluate)
for command in (cli_predict.predict, cli_predict.picture):
    app.command()(command)
for command in (cli_table.table, cli_read.describe, cli_read.doctor, cli_read.publish):
    app.command()(command)
app.command()(cli_compare.compare)
app.command()(cli_profile.profile)
app.command()(cli_report.report)
app.command()(cli_score.score)
for command in (cli_merge.merge, cli_merge.export):
    app.command()(command)
app.command("list")(cli_read.list_)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_check.app, name="check")
app.add_typer(cli_sweep.app, name="sweep")
