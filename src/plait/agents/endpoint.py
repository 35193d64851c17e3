"""A language model behind an OpenAI-compatible endpoint: chat completions with tool calls."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import openai

from plait.agents.toolbox import ToolSpec
from plait.agents.transports import TooLarge, http_client
from plait.core.errors import UserError
from plait.core.foreign import bounded_json, clean, one_line

Message = dict[str, Any]

MOST_BYTES = 8 << 20  # of a reply
MOST_TEXT = 200_000  # characters of its words
MOST_CALLS = 64  # of a turn that are looked at
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_NAME_CHARACTERS = 128


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
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=key, max_retries=retries, http_client=http_client(MOST_BYTES)
        )

    async def reply(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, may_call: bool
    ) -> Reply:
        """The next turn.

        Raises:
            EndpointError: unreachable, a refusal with its reason, or a reply that is none.
        """
        extra: dict[str, Any] = {} if may_call else {"tool_choice": "none"}
        try:
            # Raw: the library takes whatever comes for a completion.
            raw = await self._client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=list(messages),  # type: ignore[arg-type]
                tools=[_function(tool) for tool in tools],  # type: ignore[arg-type, misc]
                **extra,
            )
            done = bounded_json(raw.content, most=MOST_BYTES)
        except openai.APITimeoutError as error:
            raise EndpointError(f"the endpoint {self.url} took too long to reply") from error
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            if isinstance(reason, TooLarge):
                raise EndpointError(f"the endpoint {self.url}: {reason}") from error
            raise EndpointError(
                f"cannot reach the endpoint {self.url}: {reason}; does the server run, and is the "
                "URL its base (often .../v1)?"
            ) from error
        except openai.APIStatusError as error:
            moved = error.response.headers.get("location") if error.status_code < 400 else None
            told = f"it redirects to {moved}, which is not followed" if moved else error.message
            raise EndpointError(
                f"the endpoint {self.url} refused (HTTP {error.status_code}): "
                f"{one_line(str(told), 300)}"
            ) from error
        except (openai.OpenAIError, TooLarge, ValueError) as error:
            raise self._nonsense(one_line(str(error), 200)) from error
        try:
            return _reply_of(done)
        except ValueError as error:
            raise self._nonsense(str(error)) from error

    def _nonsense(self, reason: str) -> EndpointError:
        return EndpointError(
            f"the endpoint {self.url} replied with no chat completion: {reason}; is the URL its "
            "base (often .../v1)?"
        )

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


def _reply_of(done: Any) -> Reply:
    """The first choice of a completion. Raises ValueError where a part is of another kind."""
    choice = _of(_of(done, dict, "the reply").get("choices") or [{}], list, "choices")[0]
    message = _of(_of(choice, dict, "a choice").get("message"), dict, "its message")
    calls: list[WantedCall] = []
    taken: set[str] = set()
    for call in _of(message.get("tool_calls") or [], list, "tool_calls")[:MOST_CALLS]:
        if _of(call, dict, "a call").get("type", "function") != "function":
            continue
        function = _of(call.get("function"), dict, "a call's function")
        name = _of(function.get("name") or "", str, "a call's name")
        arguments = function.get("arguments") or ""
        if isinstance(arguments, dict):  # some servers parse them
            arguments = json.dumps(arguments)
        own = call.get("id")
        if not isinstance(own, str) or not _ID.fullmatch(own) or own in taken:
            own = f"plait-call-{len(calls)}"
        taken.add(own)
        _of(arguments, str, "a call's arguments")
        calls.append(WantedCall(own, one_line(name, _NAME_CHARACTERS), clean(arguments)))
    return Reply(clean(_words(message.get("content"))[:MOST_TEXT]), tuple(calls))


def _words(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        texts = [one.get("text") for one in content if isinstance(one, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    words: str = _of(content or "", str, "its content")
    return words


def _of(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} is no {kind.__name__}")
    return value


def _is_json(text: str) -> bool:
    try:
        bounded_json(text, most=MOST_BYTES)
    except ValueError:
        return False
    return True
