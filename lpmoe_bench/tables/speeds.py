"""Speeds measured side by side, for records whose runs had to share a machine with other work."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpmoe_bench.errors import DataError
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.columns import Column


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MethodSpeed(_Part):
    """One method: trainable parameters, CPU seconds of a training step and of the frozen backbone's
    forward pass on the same batch, bytes that training took beyond the start of the process."""

    method: str
    parameters: int
    peak_bytes: int
    step_seconds: float = Field(gt=0)
    forward_seconds: float = Field(gt=0)
    time_ratio: float = Field(gt=0)


class Speeds(_Part):
    """What `benchmarks/methods.py --json` prints: all methods on one thread, in turns."""

    torch: str
    threads: int
    cpu: str = ""
    backbone: str
    size: int
    batch: int
    rows: list[MethodSpeed]

    def of(self, record: Record) -> MethodSpeed | None:
        """Return the row of a record's method on its backbone at its size, with as many parameters:
        other options that change the work change these too."""
        if record.backbone is None or record.parameters is None:
            return None
        if (record.backbone.name, record.config.get("size")) != (self.backbone, self.size):
            return None
        wanted = (record.method.name, record.parameters.method)
        return next((row for row in self.rows if (row.method, row.parameters) == wanted), None)

    @property
    def words(self) -> str:
        """The line below a table."""
        cores = "one core" if self.threads == 1 else f"{self.threads} cores"
        place = f" of {self.cpu}" if self.cpu else ""
        return (
            f"Images/s of training and x forward (a step's time over that of the frozen backbone's "
            f"forward pass): CPU time on {cores}{place}, all methods in turns, {self.size} px, "
            f"batch {self.batch}."
        )


def read_speeds(path: Path) -> Speeds:
    """Read a file that `benchmarks/methods.py --json` wrote; raises DataError in one sentence."""
    try:
        return Speeds.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--speeds {path} could not be read ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"--speeds {path} is not what benchmarks/methods.py --json prints: {place}: "
            f"{first['msg'].lower()}"
        ) from None


def speed_columns(speeds: Speeds) -> list[Column]:
    """Return the columns of measured speeds, empty where a record was not measured."""

    def rate(record: Record, _: str) -> float | None:
        found = speeds.of(record)
        return speeds.batch / found.step_seconds if found else None

    def ratio(record: Record, _: str) -> float | None:
        found = speeds.of(record)
        return found.time_ratio if found else None

    return [
        Column("measured_train_images_per_second", "Train images/s", "Train images/s", 2, rate),
        Column("step_over_forward", "x forward", r"$\times$ forward", 2, ratio),
    ]
