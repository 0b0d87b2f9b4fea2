"""Which addresses callbacks may go to: public ones, unless the settings allow private ones.

A host name is resolved once. All its addresses are checked, and the connection goes to one of them.
A second look-up could return a private address (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpcore

from asr.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.settings import Settings

MAX_URL_LENGTH: Final = 2048
N_RESOLVERS: Final = 128
"""Threads that resolve names, four for each delivery at once. A name server that does not answer
holds a thread for about half a minute, longer than the delivery waits for it."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # an IPv6 address that contains an IPv4 one
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")


class RefusedAddress(Exception):
    """Callbacks must not go to this address."""


def check_callback_url(url: str, settings: Settings) -> None:
    """Check a URL as far as possible without resolving its host.

    Raises:
        InvalidOption: callbacks must not go there.
    """
    try:
        objection = _objection(url, settings)
    except ValueError:
        objection = "is not a URL"
    if objection:
        raise InvalidOption("callback_url", objection)


def _objection(url: str, settings: Settings) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_plain = len(url) <= MAX_URL_LENGTH and url.isascii() and url.isprintable() and " " not in url
    has_user = parts.username is not None or parts.password is not None
    objections = {
        "callbacks are off; the server needs ASR_WEBHOOK_SECRET": not settings.webhook_secret,
        "must be an http or https URL": parts.scheme not in ("http", "https")
        or not is_plain
        or not _is_host(host),
        "must not contain a user name or password": has_user,
        "must not name port 0": parts.port == 0,
        "must not be a private address": not settings.webhook_allow_private and _is_private(host),
    }
    return next((message for message, holds in objections.items() if holds), "")


def _is_host(host: str) -> bool:
    """Whether Python's resolver accepts `host`. It raises for a label that is empty or too long."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _is_private(host: str) -> bool:
    """Whether `host` is an address that is not public; False for a name."""
    with contextlib.suppress(ValueError):
        return not is_public(ipaddress.ip_address(host))
    return False


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address, and the IPv4 address that it may contain, belongs to the internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


class CheckedBackend(httpcore.AnyIOBackend):
    """Resolves a host, checks all its addresses, and connects to one of them.

    Args:
        allow_private: connect to private addresses, too.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        # Not the threads of the event loop: there are few, and each request needs one.
        self._resolvers = ThreadPoolExecutor(N_RESOLVERS, "names")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host.

        Raises:
            RefusedAddress: one of its addresses is private.
            httpcore.ConnectError: the host is unknown, or cannot be reached.
        """
        loop = asyncio.get_running_loop()
        resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(timeout):
                found = await loop.run_in_executor(self._resolvers, resolve)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known") from error
        addresses = [entry[4][0] for entry in found]
        for address in addresses:
            if not self._allow_private and not is_public(ipaddress.ip_address(address)):
                raise RefusedAddress(f"{host} leads to the private address {address}")
        return await super().connect_tcp(
            str(addresses[0]), port, timeout, local_address, socket_options
        )
