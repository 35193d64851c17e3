"""Whether a worker still lives, by its heartbeats and by what the system says of its process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

HANG_SECONDS = 10.0  # without a heartbeat after which a worker that served is replaced
PAGING_SECONDS = 60.0  # the same for one that is being read back from swap
STOPPED_SECONDS = 1.0  # that a process may be stopped (SIGSTOP): a slip of a terminal is undone
_ASLEEP = 5.0  # between two looks: then the parent did not run itself, and heard nothing
_MAJOR_FAULTS = 9  # its place in /proc/PID/stat behind the name


class Pulse:
    """Decides when a worker must be replaced though its process is there.

    A worker that has not served yet may be silent: loading a model has no bound. The monotonic
    clock neither jumps when the time is set nor runs while the machine is suspended.

    Args:
        pid: of the worker, a child of this process.
        clock: in seconds.
    """

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.pid, self.clock = pid, clock
        self.served = False
        self._beat = self._look = clock()
        self._stopped: float | None = None
        self._faults = major_faults(pid)

    def beat(self) -> None:
        """A heartbeat came."""
        self._beat = self.clock()
        self._faults = major_faults(self.pid)

    def fault(self) -> str | None:
        """Why the worker must be replaced, or None; to be asked a few times a second."""
        now, before = self.clock(), self._look
        self._look = now
        if now - before > _ASLEEP:
            self._beat, self._stopped = now, None
            return None
        if not is_stopped(self.pid):
            self._stopped = None
        elif self._stopped is None:
            self._stopped = now
        elif now - self._stopped >= STOPPED_SECONDS:
            return "was stopped by a signal"
        silent = now - self._beat
        if not self.served or silent < HANG_SECONDS:
            return None
        if silent < PAGING_SECONDS and major_faults(self.pid) > self._faults:
            return None
        return "hangs"


def is_stopped(pid: int) -> bool:
    """Whether a child is stopped now by SIGSTOP or a kin of it; False where no system call tells."""
    if not hasattr(
        os, "waitid"
    ):  # macOS before Python 3.13; a worker that hangs shows by its beats
        return False
    try:
        # WNOWAIT leaves what it finds: it is found again at the next look, and by Popen.wait.
        found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return found is not None


def major_faults(pid: int) -> int:
    """How often a process had to wait for a page from the disk; 0 where the system does not say."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(line.rpartition(")")[2].split()[_MAJOR_FAULTS])
