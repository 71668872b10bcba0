"""Commands that are killed: a process that has imported torch once, and forks it for each.

As a program it reads tasks from standard input, a line of JSON each, and writes a line of JSON with
what became of it; see `Forker.run`.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tiny_runs import environment

# What a run imports where it first needs it.
IMPORTED = ("lpmoe_bench.training.run", "lpmoe_bench.metrics.kernels", "lightning_fabric")
IMPORTED += ("torch._dynamo", "onnx", "lpmoe_bench.cli.app")
CONVERSION = "lpmoe_bench.model.weights.default_backbone"


class Forked(NamedTuple):
    """What became of a command: its exit code, negative for a signal, its time, its last words."""

    code: int
    seconds: float
    said: str


class Forker:
    """The end of the tests: starts the process and hands it one command after another."""

    def __init__(self, log: Path):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def run(
        self,
        command: list[str],
        cache: Path,
        seconds: float = 600.0,
        package: Mapping[str, str] | None = None,
    ) -> Forked:
        """Run a command line and kill it after so many seconds, unless it ends by itself.

        Without a command the default backbone is made in the cache, of a wheel there whose
        checksums are `package`: constants of `default_backbone` by name.
        """
        task = {"command": command, "cache": str(cache), "seconds": seconds, "package": package}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        code, took = json.loads(self.process.stdout.readline())
        return Forked(code, took, self.log.read_text()[-2000:])

    def close(self) -> None:
        with self.process:  # which closes its input, and waits
            pass


def carry_out(task: dict[str, Any], log: str) -> None:
    """In the fork: do what is asked for, and end the process."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["LPMOE_BENCH_CACHE"] = task["cache"]
    if not task["command"]:
        module = importlib.import_module(CONVERSION)
        vars(module).update(task["package"])
        module.default_weights(Path(task["cache"]), True, print)
        return
    sys.argv = ["lpmoe-bench", *task["command"]]
    importlib.import_module("lpmoe_bench.cli.app").main()


def serve(log: str) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        task = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                carry_out(task, log)
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(code)
        ended = 0
        while not ended and time.monotonic() < began + task["seconds"]:
            time.sleep(0.001)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        took = time.monotonic() - began
        print(json.dumps([os.waitstatus_to_exitcode(status), took]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
