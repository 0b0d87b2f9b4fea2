"""Callbacks: a signed POST to the client's server when a job ends.

The signature follows https://www.standardwebhooks.com: HMAC-SHA256 over ``id.timestamp.body``.
Redirects are not followed. `asr.service.jobs.addresses` keeps callbacks out of private networks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import httpcore

from asr.errors import StoreUnavailable
from asr.service.jobs.addresses import CheckedBackend, RefusedAddress
from asr.service.jobs.callbacks import MAX_WAIT_SECONDS, InFlight
from asr.service.jobs.schemas import job_body
from asr.signing import signing_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asr.service.jobs.callbacks import CallbackQueue
    from asr.service.jobs.rows import Callback
    from asr.settings import Settings

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 10
FIRST_DELAY: Final = 2.0
"""Seconds after the first attempt. The delay doubles with each attempt, up to `MAX_DELAY`."""
MAX_DELAY: Final = MAX_WAIT_SECONDS
TIMEOUT_SECONDS: Final = 10.0
POLL_SECONDS: Final = 1.0
MAX_CONCURRENT: Final = 32
"""Deliveries at once. `InFlight` divides them among owners and receivers."""

_TIMEOUTS: Final = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
_GONE: Final = 410
"""The status with which a receiver says that it wants no more attempts."""


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header ``webhook-signature``."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(signing_key(secret), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Webhooks:
    """Delivers callbacks until the receiver accepts them or `MAX_ATTEMPTS` were made.

    Args:
        queue: the callbacks that are due. The database's clock decides when the next attempt is.
        settings: of the service.
        sleep: waits between two polls of an empty queue; tests replace it.
    """

    def __init__(
        self,
        queue: CallbackQueue,
        settings: Settings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._queue = queue
        self._secret = settings.webhook_secret
        self._prefix = settings.prefix
        self._backend = CheckedBackend(allow_private=settings.webhook_allow_private)
        self._sleep = sleep

    async def run(self) -> None:
        """Deliver callbacks until cancelled. Without a secret, return at once."""
        if not self._secret:
            return
        places, in_flight = asyncio.Semaphore(MAX_CONCURRENT), InFlight(MAX_CONCURRENT)

        def end(callback: Callback, _: object) -> None:
            in_flight.remove(callback)
            places.release()

        async with (
            httpcore.AsyncConnectionPool(
                max_connections=MAX_CONCURRENT, network_backend=self._backend
            ) as pool,
            asyncio.TaskGroup() as group,
        ):
            while True:
                await places.acquire()
                callback = await self._next(in_flight)
                in_flight.add(callback)
                task = group.create_task(self._deliver(pool, callback))
                task.add_done_callback(partial(end, callback))

    async def _next(self, in_flight: InFlight) -> Callback:
        while True:
            with contextlib.suppress(StoreUnavailable):
                if found := await self._queue.next(3 * TIMEOUT_SECONDS, in_flight):
                    return found
            await self._sleep(POLL_SECONDS)

    async def _deliver(self, pool: httpcore.AsyncConnectionPool, callback: Callback) -> None:
        try:
            status = await self._post(pool, callback)
            with contextlib.suppress(StoreUnavailable):  # it will be sent again, with the same id
                await self._settle(callback, status)
        except Exception:  # else it would end the task group, with all deliveries and jobs
            logger.exception("callback of job %s", callback.job.id)

    async def _settle(self, callback: Callback, status: int) -> None:
        if 200 <= status < 300:
            await self._queue.settle(callback, "delivered")
        elif status == _GONE or callback.attempts >= MAX_ATTEMPTS:
            logger.warning("callback of job %s: given up", callback.job.id)
            await self._queue.settle(callback, "failed")
        else:
            delay = min(FIRST_DELAY * 2 ** (callback.attempts - 1), MAX_DELAY)
            await self._queue.settle(callback, "pending", delay)

    async def _post(self, pool: httpcore.AsyncConnectionPool, callback: Callback) -> int:
        """The status of the answer, or 0 if there was none."""
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
            status, reason = _GONE, str(error)
        except Exception as error:  # noqa: BLE001  # no error of a delivery may end the jobs
            status, reason = 0, type(error).__name__
        else:
            reason = f"status {status}"
        logger.info("callback of job %s: %s", callback.job.id, reason)
        return status

    def _message(self, callback: Callback) -> tuple[list[tuple[str, str]], bytes]:
        """The headers and the body of the POST."""
        data = job_body(callback.job, self._prefix)
        event = {"type": f"job.{callback.job.state}", "data": data}
        body = json.dumps(event).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "asr-service",
            "webhook-id": callback.id,
            "webhook-timestamp": str(callback.now),
            "webhook-signature": sign(self._secret, callback.id, callback.now, body),
        }
        return list(headers.items()), body
