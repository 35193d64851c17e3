"""A task from beginning to end: pictures, tools, language model, loop, transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mcp.server.lowlevel import Server

from plait.agents.agent import Limits, run_agent
from plait.agents.endpoint import Endpoint
from plait.agents.handles import Album
from plait.agents.record import Record
from plait.agents.toolbox import connected
from plait.agents.transcript import check_free, write_transcript
from plait.core.errors import UserError


def work(
    task: str,
    images: Sequence[Path],
    server: Server[Any] | str,
    endpoint: Endpoint,
    *,
    limits: Limits,
    transcript: Path | None = None,
    show_pictures: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Record:
    """Lets a language model solve a task with tools.

    Args:
        task: in words.
        images: files that the task is about.
        server: of tools: one in this process, a URL, or a command.
        endpoint: of the language model.
        limits: of steps and time.
        transcript: a Markdown file to write, also when the run is stopped.
        show_pictures: also send the pictures to the language model.
        tell: is told what happens.

    Raises:
        UserError: a picture that cannot be used, a server or an endpoint that cannot be reached.
    """
    if not task.strip():
        raise UserError("the task is empty: say in words what to do")
    if transcript is not None:
        check_free(transcript)
    album, record = Album(), Record(task, endpoint.model)
    for path in images:
        name = album.add_file(path)
        record.pictures[name] = album[name].caption

    async def run() -> None:
        try:
            async with connected(
                server, seconds=limits.seconds, call_seconds=limits.call_seconds
            ) as toolbox:
                record.tools = list(toolbox.tools)
                for name, reason in toolbox.refused.items():
                    tell(f"the tool {name} is not used: {reason}")
                await run_agent(
                    record,
                    album,
                    toolbox,
                    endpoint,
                    limits=limits,
                    show_pictures=show_pictures,
                    tell=tell,
                )
        finally:
            await endpoint.close()

    try:
        asyncio.run(run())
    except UserError as error:
        record.status, record.reason = "stopped", record.reason or str(error)
        raise
    finally:
        if transcript is not None:
            write_transcript(record, album, transcript)
    return record
