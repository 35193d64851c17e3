"""Arguments against the schemas of foreign tools, in a process that can be killed.

A schema comes from whoever runs the server of tools, and arguments from whatever the language model
has read: patterns that backtrack, references that multiply, and lists whose entries are compared
with one another can take for ever. So a process of its own checks them; when its time is over, it
dies and the next check gets a new one. It fetches nothing: a reference that leaves the schema is an
error.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

from plait.core.errors import UserError
from plait.core.foreign import is_deeper

SECONDS = 2.0  # of the processor for one check
MOST_CHARACTERS = 100_000  # of a schema as JSON
MOST_FAULTS = 10
_FAULT_CHARACTERS = 300
_MEMORY = 1 << 30
_WALL_SECONDS = 20.0  # for one check, and for the start: the machine may be busy
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA = ("const", "default", "enum", "example", "examples")  # whose values are no schemas


class CheckFailed(UserError):
    """A check that came to no end."""


def unfit(schema: Any) -> str | None:
    """Why a tool with this schema is not used, or None. Does not judge what costs time."""
    if not isinstance(schema, Mapping):
        return "its schema is no object"
    if is_deeper(schema, 64):
        return "its schema is nested too deeply"
    if len(json.dumps(schema)) > MOST_CHARACTERS:
        return f"its schema has more than {MOST_CHARACTERS:,} characters"
    stack: list[Any] = [schema]
    while stack:
        one = stack.pop()
        if isinstance(one, Mapping):
            for name in _REFERENCES:
                target = one.get(name)
                if isinstance(target, str) and not target.startswith("#"):
                    return f"its schema refers to {target[:100]!r}, and nothing is fetched"
            stack += [inner for name, inner in one.items() if name not in _DATA]
        elif isinstance(one, list):
            stack += one
    return None


class Checker:
    """Checks arguments in another process, one at a time.

    Args:
        seconds: of the processor for one check.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: asyncio.subprocess.Process | None = None
        self._one = asyncio.Lock()

    async def faults(self, schema: Mapping[str, Any], arguments: Any) -> list[str]:
        """What is wrong with the arguments, one sentence each, at most ten.

        Raises:
            CheckFailed: too slow, too large, or a schema that is none.
        """
        asked = json.dumps({"schema": schema, "arguments": arguments}) + "\n"
        async with self._one:
            try:
                process = self._process or await self._started()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(asked.encode())
                async with asyncio.timeout(_WALL_SECONDS):
                    await process.stdin.drain()
                    line = await process.stdout.readline()
                answer = json.loads(line or '{"problem": "it takes too long or too much memory"}')
                if not line:
                    await self._drop()
            except (TimeoutError, ConnectionError):
                await self._drop()
                answer = {"problem": "it takes too long"}
            except BaseException:  # cancelled: what is under way would answer the next question
                await self._drop()
                raise
        if "problem" in answer:
            raise CheckFailed(f"they cannot be checked against its schema: {answer['problem']}")
        found: list[str] = answer["faults"]
        return found

    async def close(self) -> None:
        """Ends the process."""
        async with self._one:
            await self._drop()

    async def _started(self) -> asyncio.subprocess.Process:
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "plait.agents.checking", str(self._seconds)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stdout is not None
        async with asyncio.timeout(_WALL_SECONDS):
            await process.stdout.readline()  # it has loaded what it needs
        return process

    async def _drop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # also closes the pipes


def _check(schema: Any, arguments: Any) -> list[str]:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    Draft202012Validator.check_schema(schema)
    found = []
    # An empty registry retrieves nothing; without one, references are fetched.
    errors = Draft202012Validator(schema, registry=Registry()).iter_errors(arguments)
    for error in itertools.islice(errors, MOST_FAULTS):
        place = ".".join(map(str, error.absolute_path))
        message = f"{place}: {error.message}" if place else error.message
        cut = message if len(message) <= _FAULT_CHARACTERS else f"{message[:_FAULT_CHARACTERS]}..."
        found.append(cut)
    return found


def _serve(seconds: float) -> None:
    """Answers questions, a line of JSON each, until standard input ends."""
    import jsonschema  # noqa: F401

    with contextlib.suppress(ImportError):  # Windows has no such limits; the clock remains
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("{}", flush=True)
    for line in sys.stdin:
        if hasattr(signal, "setitimer"):  # SIGVTALRM ends the process, whatever it computes
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        try:
            answer: dict[str, Any] = {"faults": _check(**json.loads(line))}
        except RecursionError:
            answer = {"problem": "it refers to itself without end"}
        except Exception as error:
            reason = getattr(error, "message", str(error)) or "of no reason"
            answer = {"problem": f"{type(error).__name__}: {reason}"[:_FAULT_CHARACTERS]}
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
