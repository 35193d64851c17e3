"""What an agent did, step by step: for the JSON document and for the transcript."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["answered", "stopped", "running"]


@dataclass
class CallRecord:
    """One call of a tool.

    Attributes:
        tool: its name, as the model wrote it.
        arguments: as the model wrote them: JSON, or the text that was none.
        result: what the model was told.
        pictures: names of the pictures that came back.
        failed: whether it was an error.
        executed: whether the tool ran at all.
        seconds: how long it took.
    """

    tool: str
    arguments: Any
    result: str = ""
    pictures: list[str] = field(default_factory=list)
    failed: bool = False
    executed: bool = False
    seconds: float = 0.0


@dataclass
class StepRecord:
    """One turn of the model and the calls that it asked for.

    Attributes:
        text: the model's words.
        calls: made in parallel.
        thinking: seconds until the model replied.
    """

    text: str
    calls: list[CallRecord] = field(default_factory=list)
    thinking: float = 0.0


@dataclass
class Record:
    """A whole run.

    Attributes:
        task: in the user's words.
        model: the name of the language model.
        pictures: name and caption of every picture, those of the task first.
        tools: names of the tools that there were.
        steps: in order.
        status: ``answered``, ``stopped`` by a limit or an error, or ``running``.
        answer: the last words of the model, empty when it never came to an answer.
        reason: why it stopped, or why tools were taken away before the answer.
        seconds: all in all.
    """

    task: str
    model: str
    pictures: dict[str, str] = field(default_factory=dict)
    tools: list[str] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    status: Status = "running"
    answer: str = ""
    reason: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
