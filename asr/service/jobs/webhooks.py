"""Callbacks: a signed POST to whoever asked to be told when a job ends.

Signed as https://www.standardwebhooks.com describes it: HMAC-SHA256 over ``id.timestamp.body``.
An address is resolved once, checked, and connected to as checked, so that no name can lead the
server into its own network. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpcore

from asr.errors import StoreUnavailable
from asr.service.http.problems import Problem
from asr.service.jobs.schemas import job_body
from asr.signing import signing_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.service.jobs.rows import Callback
    from asr.service.jobs.store import JobStore
    from asr.settings import Settings

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 10
FIRST_DELAY: Final = 2.0
MAX_DELAY: Final = 3600.0
TIMEOUT_SECONDS: Final = 10.0
POLL_SECONDS: Final = 1.0
MAX_URL_LENGTH: Final = 2048
AT_ONCE: Final = 8

_TIMEOUTS: Final = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")  # NAT64: IPv4 in disguise
_INTERNET: Final = ipaddress.ip_network("2000::/3")  # all that is given to anybody


class RefusedAddress(Exception):
    """The address lies where callbacks must not go."""


def check_address(url: str, settings: Settings) -> None:
    """Refuse what can be seen to be wrong before a name is resolved.

    Raises:
        Problem: 400.
    """
    try:
        reason = _objection(url, settings)
    except ValueError:
        reason = "is no URL"
    if reason:
        raise Problem(400, f"callback_url: {reason}", "invalid_value", "callback_url")


def _objection(url: str, settings: Settings) -> str:
    parts = urlsplit(url)
    is_plain = len(url) <= MAX_URL_LENGTH and url.isascii() and url.isprintable() and " " not in url
    has_user = parts.username is not None or parts.password is not None
    objections = {
        "callbacks are off; the server needs ASR_WEBHOOK_SECRET": not settings.webhook_secret,
        "must be an http or https URL": parts.scheme not in ("http", "https")
        or not is_plain
        or not _is_host(parts.hostname or ""),
        "must hold no user name or password": has_user,
        "must name a port above 0": parts.port == 0,
        "must not be a private address": not settings.webhook_allow_private
        and _is_private(parts.hostname or ""),
    }
    return next((message for message, holds in objections.items() if holds), "")


def _is_host(host: str) -> bool:
    """Whether a resolver takes it: one with an empty or a long label makes Python's raise."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _is_private(host: str) -> bool:
    """Whether `host` is an address, not a name, and no public one."""
    with contextlib.suppress(ValueError):
        return not is_public(ipaddress.ip_address(host))
    return False


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it lies in the open internet, also once translated to IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _TRANSLATED:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address not in _INTERNET:
            return False
    return address.is_global and not address.is_multicast


class _CheckedBackend(httpcore.AnyIOBackend):
    """Connects to the address that it has resolved and checked, and to no other."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known") from error
        addresses = [entry[4][0] for entry in found]
        for address in addresses:
            if not self._allow_private and not is_public(ipaddress.ip_address(address)):
                raise RefusedAddress(f"{host} leads to the private address {address}")
        return await super().connect_tcp(
            str(addresses[0]), port, timeout, local_address, socket_options
        )


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(signing_key(secret), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Webhooks:
    """Delivers callbacks until they are taken or `MAX_ATTEMPTS` were made."""

    def __init__(self, store: JobStore, settings: Settings) -> None:
        self._store = store
        self._secret = settings.webhook_secret
        self._backend = _CheckedBackend(allow_private=settings.webhook_allow_private)

    async def run(self) -> None:
        """Deliver until cancelled."""
        if not self._secret:
            return
        places = asyncio.Semaphore(AT_ONCE)
        async with (
            httpcore.AsyncConnectionPool(network_backend=self._backend) as pool,
            asyncio.TaskGroup() as group,
        ):
            while True:
                await places.acquire()
                callback = await self._next()
                task = group.create_task(self._deliver(pool, callback))
                task.add_done_callback(lambda _: places.release())

    async def _next(self) -> Callback:
        while True:
            with contextlib.suppress(StoreUnavailable):
                if found := await self._store.next_callback(3 * TIMEOUT_SECONDS):
                    return found
            await asyncio.sleep(POLL_SECONDS)

    async def _deliver(self, pool: httpcore.AsyncConnectionPool, callback: Callback) -> None:
        try:
            status = await self._post(pool, callback)
            with contextlib.suppress(StoreUnavailable):  # then it is sent again, with the same id
                await self._settle(callback, status)
        except Exception:  # would end the other deliveries, and with them all jobs in work
            logger.exception("callback of job %s", callback.job.id)

    async def _settle(self, callback: Callback, status: int) -> None:
        if 200 <= status < 300:
            await self._store.settle_callback(callback, "delivered")
        elif status == 410 or callback.attempts >= MAX_ATTEMPTS:
            logger.warning("callback of job %s: given up", callback.job.id)
            await self._store.settle_callback(callback, "failed")
        else:
            delay = min(FIRST_DELAY * 2 ** (callback.attempts - 1), MAX_DELAY)
            await self._store.settle_callback(callback, "pending", delay)

    async def _post(self, pool: httpcore.AsyncConnectionPool, callback: Callback) -> int:
        """The status of the answer, or 0 when there was none."""
        try:
            headers, body = self._message(callback)
            async with (
                asyncio.timeout(2 * TIMEOUT_SECONDS),
                pool.stream(
                    "POST",
                    callback.url,
                    headers=headers,
                    content=body,
                    extensions={"timeout": _TIMEOUTS},
                ) as response,
            ):
                status = response.status
        except RefusedAddress as error:
            status, reason = 410, str(error)
        except Exception as error:  # noqa: BLE001  # neither a stranger's server nor we may end jobs
            status, reason = 0, type(error).__name__
        else:
            reason = f"status {status}"
        logger.info("callback of job %s: %s", callback.job.id, reason)
        return status

    def _message(self, callback: Callback) -> tuple[list[tuple[str, str]], bytes]:
        event = {"type": f"job.{callback.job.state}", "data": job_body(callback.job)}
        body = json.dumps(event).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "asr-service",
            "webhook-id": callback.id,
            "webhook-timestamp": str(callback.now),
            "webhook-signature": sign(self._secret, callback.id, callback.now, body),
        }
        return list(headers.items()), body
