"""A process that ends with the one that started it, and heeds its signals."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def tether(parent: int) -> None:
    """Have this process sent SIGTERM when its parent dies; at once where it is dead already.

    In training that saves the state first, elsewhere it ends the process. `parent` is the process
    id that the starter knows itself by.
    """
    # Ray blocks SIGINT for its workers, a shell ignores it for what it starts in the background,
    # and both are inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # one of several, started by the first of them
        parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
