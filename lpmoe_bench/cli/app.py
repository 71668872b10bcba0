"""The command line: parse, call one function, print."""

import errno
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from lpmoe_bench import __version__
from lpmoe_bench.cli import (
    check,
    compare,
    contract,
    data,
    doctor,
    figure,
    lists,
    models,
    new,
    predict,
    report,
    run,
    score,
    sweep,
    table,
    verify,
)
from lpmoe_bench.cli.options import App
from lpmoe_bench.console import guarded_streams, printable
from lpmoe_bench.errors import BenchError, DataError, ResourceError, UsageError, is_out_of_memory
from lpmoe_bench.files import FULL
from method_zoo.errors import ZooError
from method_zoo.plugins import explain_fault

# Any other module that is missing is a fault of ours, and keeps its traceback.
TRAIN_PACKAGES = ("torch", "torchvision", "timm", "lightning_fabric", "safetensors", "onnx")
TRAIN_PACKAGES += ("segment_anything",)
TRACEBACK = "LPMOE_BENCH_TRACEBACK"  # set: who looks for a fault sees where an error came from
# What is refused for want of something, or of a right, rather than for what was asked.
SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EIO, errno.EROFS, errno.EACCES)
SHORT_OF += (errno.EPERM, errno.ETIMEDOUT, errno.EBUSY)

app = App(
    no_args_is_help=True,
    # Typer's own tracebacks print the values of variables, which may be whole arrays.
    pretty_exceptions_enable=False,
    help="Train, score and compare parameter-efficient fine-tuning methods for segmentation.",
    epilog="Exit codes: 0 ok, 1 a fault of ours, 2 usage, 3 data, 4 some cells or checks failed, "
    "5 not comparable, 6 resources, 7 diverged, 10 regression, 11 inconclusive, 130 interrupted "
    "(the same command resumes), 141 the reader of the output ended.",
)


def main() -> None:
    """Run the command line; an expected error is one line on stderr and its exit code."""
    code: str | int | None = 0
    try:
        with guarded_streams():
            try:
                os.getcwd()  # now: libraries end a process without a folder in words of their own
                app()
            except SystemExit as end:
                code = end.code
            except Exception as error:
                code = _tell(error)
    except BenchError as error:  # what was left to print could not be written
        code = code or _tell(error)
    sys.exit(code)


def _tell(error: Exception) -> int:
    """Print the sentence of an error and return its exit code; raise what is a fault of ours."""
    told = as_expected(error)
    if told is None or os.environ.get(TRACEBACK):
        raise error
    with suppress(OSError):
        print(f"error: {printable(str(told))}", file=sys.stderr)
    return told.exit_code


def as_expected(error: Exception) -> BenchError | None:
    """Return the error that a user can act on; None where the code is at fault.

    What a module can say better it says itself. Here is what can befall any line: memory, disk and
    folders that are gone, texts that are nested without end, numbers that no computer holds.
    """
    if isinstance(error, BenchError):
        return error
    if isinstance(error, ZooError):
        return UsageError(str(error))
    if isinstance(error, ModuleNotFoundError):
        # The base install reads and scores without torch: who trains is told what to install.
        if error.name not in TRAIN_PACKAGES:
            return None
        return UsageError(
            f"this command needs {error.name}, which is not installed; "
            f"install it with: pip install 'lpmoe-bench[train]'"
        )
    if is_out_of_memory(error):
        return ResourceError(
            "out of memory; use a smaller size or batch, fewer --jobs, or a machine that has more"
        )
    if sentence := explain_fault(error):  # who wrote a plug-in needs the line of his own file
        return UsageError(sentence)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, RecursionError):
        return DataError(
            "a file that was read is nested too deeply; it is damaged, or no such file"
        )
    if isinstance(error, OverflowError):
        return UsageError(f"a number that was given is too large to compute with ({error})")
    if isinstance(error, UnicodeEncodeError):
        return UsageError(
            f"a name cannot be written in the encoding {error.encoding} of this system; "
            f"set LC_ALL=C.UTF-8"
        )
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return UsageError("no home folder is known; set HOME, or LPMOE_BENCH_CACHE to a folder")
    return None


def _of_system(error: OSError) -> BenchError:
    """Return the sentence for what the operating system refused."""
    try:
        os.getcwd()
    except OSError:
        return UsageError("the working folder does not exist any more; change to one that does")
    # Without a name, since what failed may be no file at all.
    why = error.strerror or str(error) or type(error).__name__
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    if error.errno in FULL:
        return ResourceError(
            f"the disk is full ({place}{why}); free some space and run the same command again, "
            f"nothing finished is lost"
        )
    if error.errno in SHORT_OF:
        return ResourceError(
            f"the system refused it ({place}{why}); check permissions, limits and the disk, and "
            f"run the same command again, nothing finished is lost"
        )
    return UsageError(f"a file or folder cannot be used ({place}{why}); check what was named")


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
app.command("import")(models.import_command)
app.command("list")(lists.list_command)
app.command("contract")(contract.contract_command)
app.add_typer(new.app, name="new")
app.add_typer(data.app, name="data")
app.add_typer(check.app, name="check")
app.add_typer(sweep.app, name="sweep")
