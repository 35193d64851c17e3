"""A language model behind an OpenAI-compatible endpoint: chat completions with tool calls."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import openai

from plait.agents.toolbox import ToolSpec
from plait.core.errors import UserError

Message = dict[str, Any]


class EndpointError(UserError):
    """An endpoint that cannot be reached, or refuses."""


@dataclass(frozen=True)
class WantedCall:
    """A call as the model wrote it; ``arguments`` is text that should be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One turn of the model: words, calls, or both."""

    text: str
    calls: tuple[WantedCall, ...] = ()

    def as_message(self) -> Message:
        """The turn for the history. Broken JSON of a call is left out: endpoints refuse it there."""
        message: Message = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": call.arguments if _is_json(call.arguments) else "{}",
                    },
                }
                for call in self.calls
            ]
        return message


@runtime_checkable
class ChatModel(Protocol):
    """What an agent needs of a language model."""

    async def reply(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, may_call: bool
    ) -> Reply:
        """The next turn; with ``may_call`` false the model is told to answer in words."""


class Endpoint:
    """A model at an OpenAI-compatible URL.

    Args:
        url: the base, e.g. ``http://127.0.0.1:8080/v1``.
        model: its name there.
        api_key_env: the environment variable that holds the key; None for an endpoint without.
        retries: after a lost connection, a rate limit or an error of the server.

    Raises:
        EndpointError: the variable is not set.
    """

    def __init__(
        self, url: str, model: str, *, api_key_env: str | None = None, retries: int = 2
    ) -> None:
        key = "none" if api_key_env is None else os.environ.get(api_key_env, "")
        if not key:
            raise EndpointError(f"--api-key-env: the variable {api_key_env} is not set or empty")
        if not url.startswith(("http://", "https://")):
            raise EndpointError(f"--endpoint {url!r} is no URL: e.g. http://127.0.0.1:8080/v1")
        self.url, self.model = url, model
        self._client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=retries)

    async def reply(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, may_call: bool
    ) -> Reply:
        """The next turn.

        Raises:
            EndpointError: unreachable, a refusal with its reason, or a reply that is none.
        """
        extra: dict[str, Any] = {} if may_call else {"tool_choice": "none"}
        try:
            done = await self._client.chat.completions.create(
                model=self.model,
                messages=list(messages),  # type: ignore[arg-type]
                tools=[_function(tool) for tool in tools],  # type: ignore[arg-type, misc]
                **extra,
            )
        except openai.APITimeoutError as error:
            raise EndpointError(f"the endpoint {self.url} took too long to reply") from error
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise EndpointError(
                f"cannot reach the endpoint {self.url}: {reason}; does the server run, and is the "
                "URL its base (often .../v1)?"
            ) from error
        except openai.APIStatusError as error:
            raise EndpointError(
                f"the endpoint {self.url} refused (HTTP {error.status_code}): {error.message}"
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise EndpointError(
                f"the endpoint {self.url} replied with no chat completion: {error}"
            ) from error
        return _reply_of(done, self.url)

    async def close(self) -> None:
        """Gives back the connections."""
        await self._client.close()


def _function(tool: ToolSpec) -> Mapping[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.about,
            "parameters": dict(tool.schema),
        },
    }


def _reply_of(done: Any, url: str) -> Reply:
    choices = getattr(done, "choices", None)  # servers that answer 200 with a page of their own
    if not choices or choices[0].message is None:
        raise EndpointError(
            f"the endpoint {url} replied with no chat completion: is the URL its base (often "
            ".../v1)?"
        )
    message = choices[0].message
    calls = [
        WantedCall(call.id or f"call-{place}", call.function.name or "", call.function.arguments)
        for place, call in enumerate(message.tool_calls or ())
        if call.type == "function"
    ]
    return Reply(message.content or "", tuple(calls))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
