"""The calls of one turn: checked, made in parallel, and answered so that a model can mend them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from plait.agents.endpoint import Message, WantedCall
from plait.agents.handles import Album
from plait.agents.record import CallRecord
from plait.agents.toolbox import Toolbox
from plait.core.errors import UserError, did_you_mean, shown
from plait.core.foreign import bounded_json, clean

MOST_ARGUMENTS = 200_000  # characters of one call


class BadCall(UserError):
    """A call that cannot be made as it was written."""


class Caller:
    """Makes calls, and remembers them.

    Args:
        toolbox: the tools.
        album: for pictures in arguments and results.
        most: calls of one turn; further ones are refused.
        characters: of a result that is passed on.
    """

    def __init__(self, toolbox: Toolbox, album: Album, most: int, characters: int) -> None:
        self.toolbox, self.album = toolbox, album
        self.most, self.characters = most, characters
        self._made: dict[str, int] = {}  # the step of every call that was made or failed
        self._repeats: list[CallRecord] = []

    def records(self, wanted: Sequence[WantedCall]) -> list[CallRecord]:
        """A record for each call, before it is made."""
        return [CallRecord(call.name, _parsed(call.arguments)) for call in wanted]

    def is_repeat(self, record: CallRecord) -> bool:
        """Whether the call was refused because it had been made before."""
        return any(record is one for one in self._repeats)

    async def answers(
        self, wanted: Sequence[WantedCall], records: Sequence[CallRecord], step: int
    ) -> list[Message]:
        """Makes the calls of a turn in parallel; returns the messages that answer them, in order."""
        await asyncio.gather(
            *(
                self._make(call, record, step, place)
                for place, (call, record) in enumerate(zip(wanted, records, strict=True))
            )
        )
        return [
            {"role": "tool", "tool_call_id": call.id, "content": record.result}
            for call, record in zip(wanted, records, strict=True)
        ]

    async def _make(self, call: WantedCall, record: CallRecord, step: int, place: int) -> None:
        begun = time.perf_counter()
        try:
            if place >= self.most:
                raise BadCall(f"at most {self.most} calls in one turn: make this one later")
            arguments = await self._checked(call, record, step)
            record.executed = True
            reply = await self.toolbox.call(call.name, arguments)
        except UserError as error:
            record.failed, record.result = True, f"ERROR: {clean(str(error))}"
        else:
            record.failed = reply.failed
            text = f"ERROR: {reply.text}" if reply.failed else reply.text
            record.pictures = [self.album.add(picture) for picture in reply.pictures]
            record.result = self._cut(text) + "".join(
                f"\n[{name}: {self.album[name].caption}]" for name in record.pictures
            )
        record.seconds = round(time.perf_counter() - begun, 3)

    async def _checked(self, call: WantedCall, record: CallRecord, step: int) -> Mapping[str, Any]:
        """The arguments with pictures in place of their names.

        Raises:
            BadCall: made before, an unknown tool, broken JSON, or arguments that do not fit.
        """
        key = f"{call.name} {json.dumps(record.arguments, sort_keys=True)}"
        if key in self._made:
            self._repeats.append(record)
            raise BadCall(
                f"this very call was made in step {self._made[key]}; its result stands there. Use "
                "it, call something else, or answer"
            )
        self._made[key] = step
        tools = self.toolbox.tools
        if call.name not in tools:
            known = ", ".join(tools)
            reason = self.toolbox.refused.get(call.name)
            hint = f" that can be used ({reason})" if reason else did_you_mean(call.name, tools)
            raise BadCall(f"there is no tool {call.name!r}{hint} (tools: {known})")
        if isinstance(record.arguments, str):
            try:
                bounded_json(call.arguments, most=MOST_ARGUMENTS)
            except ValueError as error:
                raise BadCall(
                    f"the arguments are no JSON ({error}): {shown(call.arguments)}. Write "
                    "one JSON object"
                ) from error
        if not isinstance(record.arguments, dict):
            raise BadCall(f"the arguments must be one JSON object, not {shown(call.arguments)}")
        faults = await self.toolbox.faults(call.name, record.arguments)
        if faults:
            named = ", ".join(tools[call.name].schema.get("properties", {}))
            raise BadCall(
                f"wrong arguments for {call.name}: {'; '.join(faults)} (it takes: {named})"
            )
        replaced = self.album.put_in(record.arguments)
        assert isinstance(replaced, dict)
        return replaced

    def _cut(self, text: str) -> str:
        if len(text) <= self.characters:
            return text
        return (
            f"{text[: self.characters]}\n[cut off: {len(text) - self.characters} more characters]"
        )


def _parsed(text: str) -> Any:
    """The JSON value, or the text itself when it is none."""
    try:
        return bounded_json(text or "{}", most=MOST_ARGUMENTS)  # some leave out what is empty
    except ValueError:
        return text[:MOST_ARGUMENTS]
