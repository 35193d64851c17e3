"""macOS and Windows: what only some systems have stands behind a question whether it is there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import plait

SOURCE = Path(plait.__file__).parent
MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
NAMES = {
    "os": {
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "WNOHANG", "chown", "environb"),
        *("eventfd", "fork", "forkpty", "geteuid", "getloadavg", "getpgid", "getuid", "killpg"),
        *("mkfifo", "nice", "pidfd_open", "posix_fadvise", "posix_spawn", "sched_getaffinity"),
        *("sched_setaffinity", "sendfile", "setpriority", "setsid", "statvfs", "sysconf", "uname"),
        *(
            "waitid",
            "fchmod",
            "fchown",
            "pread",
            "pwrite",
            "getresuid",
            "memfd_create",
            "confstr",
            "sync",
        ),
    },
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGTSTP"),
        *("SIGUSR1", "SIGUSR2", "SIGPIPE", "alarm", "pause", "pthread_kill", "setitimer"),
        *("pthread_sigmask", "sigpending"),
        *("ITIMER_PROF", "ITIMER_REAL", "ITIMER_VIRTUAL", "sigwait", "siginterrupt"),
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT", "recv_fds", "send_fds"},
}
FIELDS = {"st_blocks", "st_blksize", "add_signal_handler"}
OPTIONS = {"pass_fds", "preexec_fn"}  # of subprocess.Popen
FOLDERS = ("/proc/", "/sys/", "/dev/")
GUARDS = (
    *("hasattr(", "getattr(", "find_spec(", "except ImportError", "suppress(ImportError)"),
    *("sys.platform", "os.name ==", ".is_file()", "except OSError"),
)
ELSEWHERE = {
    "runtime/decoding.py": 'sys.platform.startswith("linux")',  # asked by serving/queue/decoders.py
    "serving/queue/decoders.py": 'sys.platform.startswith("linux")',
    "serving/process/supervisor.py": 'sys.platform == "win32"',  # asked by serving/process/run.py
    "serving/service/searching.py": 'sys.platform == "win32"',
}
"""Files of processes that only start where what they use is there, and the question that decides."""


def used(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What not every system has, without docstrings and comments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, one.name) for one in node.names if one.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if node.module in MODULES:
                yield node, str(node.module)
            yield from (
                (node, f"{node.module}.{one.name}")
                for one in node.names
                if one.name in NAMES.get(str(node.module), ())
            )
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in NAMES.get(owner, ()) or node.attr in FIELDS:
                yield node, node.attr
        elif isinstance(node, ast.keyword) and node.arg in OPTIONS:
            yield node, node.arg
        elif isinstance(node, ast.Call):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant) and str(named.value).startswith(FOLDERS):
                yield node, str(named.value)
            if isinstance(named, ast.JoinedStr) and ast.unparse(named)[2:].startswith(FOLDERS):
                yield node, ast.unparse(named)[2:-1]


def unguarded(text: str) -> list[str]:
    """Uses in functions, or at the top of a module, that ask nothing."""
    tree = ast.parse(text)
    functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
    functions += [one for one in ast.walk(tree) if isinstance(one, ast.AsyncFunctionDef)]
    found = []
    for node, name in used(tree):
        line = node.lineno  # type: ignore[attr-defined]
        around = [one for one in functions if one.lineno <= line <= (one.end_lineno or line)]
        inner = max(around, key=lambda one: one.lineno, default=None)
        if inner is None and name.startswith(FOLDERS):
            continue  # the name of a file, which a function reads
        asked = ast.get_source_segment(text, inner) if inner else text.splitlines()[line - 1]
        if not any(guard in str(asked) for guard in GUARDS):
            found.append(f"line {line}: {name}")
    return found


def test_nothing_that_a_system_lacks_is_used_unasked() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    texts = {one.relative_to(SOURCE).as_posix(): one.read_text(encoding="utf-8") for one in files}
    found = {name: lines for name, text in texts.items() if (lines := unguarded(text))}
    assert {name: lines for name, lines in found.items() if name not in ELSEWHERE} == {}
    asked = texts["serving/queue/decoders.py"] + texts["serving/process/run.py"]
    assert found.keys() == ELSEWHERE.keys() and all(one in asked for one in ELSEWHERE.values())


@pytest.mark.parametrize(
    "line",
    [
        "import resource",
        "from fcntl import flock",
        "cores = len(os.sched_getaffinity(0))",
        "os.kill(pid, signal.SIGKILL)",
        "from signal import SIGKILL",
        "def f(pid):\n    return open(f'/proc/{pid}/stat').read()",
        "Popen(command, pass_fds=(3,))",
        "def f(path):\n    return os.stat(path).st_blocks",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert len(unguarded(line)) == 1


def test_what_asks_is_left_alone() -> None:
    assert unguarded("def f():\n    if find_spec('resource'):\n        import resource") == []
