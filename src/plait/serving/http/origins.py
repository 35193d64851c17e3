"""Browsers: which web pages may make one ask this server, and what its answers tell one.

A page of another site needs no leave to send a request, only to read the answer; so requests that
cost something are refused by where they come from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from ipaddress import IPv6Address

from starlette.datastructures import Headers

from plait.core.errors import shown
from plait.serving.base.errors import RequestError

SECURITY_HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every answer. The policy on referrers is one with which a browser still tells the page's own
origin; ``no-referrer`` would make it ``null``."""

_HOST = re.compile(
    r"(?P<name>[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*"
    r"|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_MOST_PORT = 65535
_OWN_SITE = ("same-origin", "none")  # `none`: typed, or from a bookmark


def host_of(headers: Headers) -> str:
    """The name in the ``Host`` header, an IPv6 address in its shortest form without brackets.

    Raises:
        RequestError: 400 for none, for several, or for something else than a name with a port.
    """
    given = headers.getlist("host")
    if len(given) != 1:
        raise _unfit(f"the request has {len(given)} Host headers, and must have one")
    match = _HOST.fullmatch(given[0].lower())
    if match is None or int(match["port"] or 0) > _MOST_PORT:
        raise _unfit(f"the Host header is {shown(given[0])}: give a name, or a name and a port")
    name = match["name"]
    if not name.startswith("["):
        return name
    try:
        return str(IPv6Address(name[1:-1]))
    except ValueError:
        raise _unfit(f"the Host header is {shown(given[0])}: that is no IPv6 address") from None


def _unfit(message: str) -> RequestError:
    return RequestError(400, message, code="invalid_host")


def check_origin(method: str, headers: Headers, listed: Collection[str]) -> None:
    """Refuses what a page of another site made a browser send.

    Args:
        method: of the request.
        headers: of it.
        listed: further origins whose pages may call; ``*`` for all.

    Raises:
        RequestError: 403.
    """
    origins = headers.getlist("origin")
    if origins:
        origin = origins[0]
        if len(origins) == 1 and (origin in listed or "*" in listed or _is_own(origin, headers)):
            return
        raise _foreign(f"pages of {shown(', '.join(origins))}")
    site = headers.get("sec-fetch-site")
    if site is None or site in _OWN_SITE:
        return
    # A link to the page may be followed; a frame, a picture or a form elsewhere may not ask.
    followed = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    if method not in ("GET", "HEAD") or followed != ("navigate", "document"):
        raise _foreign("pages of other sites")


def _is_own(origin: str, headers: Headers) -> bool:
    """Whether it is the host that the request itself is for; a proxy may have ended its TLS."""
    scheme, _, place = origin.lower().partition("://")
    host = headers.get("host", "").lower()
    return scheme in ("http", "https") and place == host


def _foreign(who: str) -> RequestError:
    return RequestError(
        403,
        f"{who} may not call this server: start it with --cors ORIGIN to let those of one",
        code="foreign_origin",
    )
