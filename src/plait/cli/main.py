"""The entry point ``plait``: runs one command; whatever stops it becomes a sentence and an exit code.

Nothing but the standard library is imported before signals are caught, so that Ctrl-C during the
imports ends as quietly as later.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.core.errors import PlaitError

_DONE, _STOPPED = 0, 130
_REPEATED = 1.0  # seconds in which a second signal is the same wish: Ctrl-C, then a supervisor's


def main() -> None:
    """The command ``plait``; exit codes as of `run`."""
    code = run()
    signal_all(lambda number, frame: os._exit(_STOPPED))  # all is done: no traceback of the way out
    if code == _STOPPED:  # at once: a thread that waits for input would be waited for
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def run() -> int:
    """Runs the command of ``sys.argv``.

    Returns:
        0 done; 2 the input is at fault; 130 stopped by the user or the system; 1 anything else.

    Raises:
        Exception: a fault of plait's own, whose traceback belongs into a report of it.
    """
    stop = _Stop()
    try:
        signal_all(stop)
        _release_signals()
        threading.excepthook = _thread_failed
        sys.unraisablehook = stop.not_raised
        code = _command()
        sys.stdout.flush()
        return code
    except BaseException as error:
        told = _told(error, stop)
        if told is None:
            raise
        return told


class _Stop:
    """The first signal raises KeyboardInterrupt in the main thread; `asked` outlives its swallowing."""

    def __init__(self) -> None:
        self.asked = False
        self._when = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._when < _REPEATED:
            return  # what is half written is being cleared away
        self.asked, self._when = True, now
        raise KeyboardInterrupt

    def not_raised(self, failed: sys.UnraisableHookArgs) -> None:
        """Where a destructor was interrupted, Python drops it: once more, a moment later."""
        if isinstance(failed.exc_value, KeyboardInterrupt):
            self._when = 0.0
            threading.Timer(0.05, _thread.interrupt_main).start()
        else:
            sys.__unraisablehook__(failed)


def signal_all(handler: Any) -> None:
    """One handler for Ctrl-C and for the system's request to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _release_signals() -> None:
    """Lets through what `plait.api.tune_process` held back while the process started over."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """No traceback of a helper thread where the disk is full: whoever waits for it is told as well."""
    from plait.core.trouble import explained

    if failed.exc_value is None or explained(failed.exc_value) is None:
        threading.__excepthook__(failed)


def _command() -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from plait.core.telemetry import switch_off

    switch_off()
    from plait.cli.commands import app

    try:
        app()
    except SystemExit as end:
        if end.code == _STOPPED:  # what typer makes of KeyboardInterrupt
            raise KeyboardInterrupt from None
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return _DONE


def _told(error: BaseException, stop: _Stop) -> int | None:
    """Tells on stderr what ended the command; None where nobody but plait is at fault."""
    from plait.core.errors import Interrupted, PlaitError
    from plait.core.trouble import explained

    if isinstance(error, BrokenPipeError):  # `plait ... | head`: whoever read has read enough
        _drop_output()
        return 1
    known: PlaitError | None
    if isinstance(error, Interrupted):
        known = error
    elif stop.asked or isinstance(error, KeyboardInterrupt):  # also where a library made it another
        known = Interrupted("stopped")
    else:
        known = error if isinstance(error, PlaitError) else explained(error)
    if known is None or os.environ.get("PLAIT_TRACEBACK") == "1":
        return None
    _report(known)
    return known.exit_code


def _report(error: PlaitError) -> None:
    """The message on stderr; with ``--json`` also one JSON document on stdout."""
    import json

    from rich.markup import escape

    from plait.cli.output import say

    with contextlib.suppress(OSError):  # stdout may be what is full
        if "--json" in sys.argv:
            report = {"error": {"type": type(error).__name__, "message": str(error)}}
            print(json.dumps(report, ensure_ascii=False), flush=True)
    with contextlib.suppress(OSError):
        say(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}")
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """Stdout goes nowhere from here on: Python flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
