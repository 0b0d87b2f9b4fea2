"""Doctor, and the tokens that the model gets, by the server's own tokenizer."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np

from asr.config import DecodeOptions
from asr.doctor import check_machine, check_server
from asr.types import SAMPLE_RATE, Audio, Chunk
from benchmarks.first_hour.arms import PLACEHOLDER, TRAINED, saying
from benchmarks.first_hour.bench import omni_engine
from benchmarks.first_hour.section import Section, Table, Verdict
from benchmarks.first_hour.wire import Wire, text_part

if TYPE_CHECKING:
    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.section import Level

CHAT: Final = "/v1/chat/completions"
AROUND: Final = 60
"""Characters of the prompt shown before and after the audio."""
TRIED: Final = {"as trained": TRAINED, "as trained, with placeholder": PLACEHOLDER + TRAINED}
"""Texts whose prompts are shown beside that of the service."""
_SPECIAL: Final = re.compile(r"<[^<>\s]+>")


async def doctor(bench: Bench) -> Section:
    """Run `asr doctor` on this machine and on each server."""
    settings, found = bench.settings, []
    for where, checks in [
        ("here", lambda: list(check_machine(settings))),
        *((url, lambda url=url: list(check_server(url, settings))) for url in settings.vllm_urls),
    ]:
        found += [(where, check) for check in await asyncio.to_thread(checks)]
    rows = [(check.name, check.level, where, check.found, check.fix) for where, check in found]
    bad = [f"{check.name}: {check.found}" for _, check in found if check.level != "ok"]
    verdict = Verdict(
        "doctor",
        "look here" if bad else "pass",
        "; ".join(bad) or f"{len(found)} checks",
        "do what the column fix says, then run again" if bad else "",
    )
    table = Table("asr doctor", [("check", "level", "where", "found", "fix"), *rows])
    return Section("doctor", "Doctor", (verdict,), (table,))


async def tokens(bench: Bench) -> Section:
    """Compare the tokens after the audio with those of training, on each server."""
    body = await sent_body(bench)
    verdicts, rows = [], []
    for url in bench.settings.vllm_urls:
        async with _client(bench, url) as client:
            prompt = await rendered(client, body)
            verdicts += await verdicts_of(client, url, body, prompt)
            rows += [_row(url, "as sent", prompt)]
            for name, text in TRIED.items():
                if text_part(body)[0] != text:
                    changed = await rendered(client, _saying(text, body))
                    rows += [_row(url, name, changed)]
    titles = ("server", "instruction", "route", "tokens", "prompt, with one second of audio")
    tables = (Table("The prompt as the server writes it", [titles, *rows]),)
    return Section("tokens", "Tokens of the instruction", tuple(verdicts), tables)


def _saying(text: str, body: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = copy.deepcopy(body)
    saying(text)(changed)
    return changed


def _row(url: str, name: str, prompt: Prompt | None) -> tuple[str, ...]:
    if prompt is None:
        return url, name, "none", "n/a", "n/a"
    return url, name, prompt.route, str(len(prompt.ids)), _shown(prompt.text)


class Prompt:
    """A prompt as tokens and text."""

    def __init__(self, ids: list[int], text: str, route: str) -> None:
        self.ids = ids
        self.text = text
        self.route = route


async def sent_body(bench: Bench) -> dict[str, Any]:
    """Let the engine recognise a tone, and return the JSON of its request."""
    bodies: list[dict[str, Any]] = []

    class Tap(httpx.AsyncBaseTransport):
        inner = bench.network or Wire(ca_file=bench.settings.vllm_ca_file)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == CHAT:
                bodies.append(json.loads(request.content))
            return await self.inner.handle_async_request(request)

        async def aclose(self) -> None:
            await self.inner.aclose()

    engine = omni_engine(bench.settings, Tap())
    at = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = Audio((0.2 * np.sin(2 * np.pi * 440 * at)).astype(np.float32))
    try:
        await engine.open()
        await engine.transcribe(Chunk(0, 0, SAMPLE_RATE), tone, DecodeOptions())
    finally:
        await engine.close()
    return bodies[0]


def _client(bench: Bench, url: str) -> httpx.AsyncClient:
    key = bench.settings.vllm_api_key
    headers = {"authorization": f"Bearer {key}"} if key else {}
    ca_file = bench.settings.vllm_ca_file
    trust = ssl.create_default_context(cafile=ca_file) if ca_file else True
    return httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60, transport=bench.network, verify=trust
    )


async def rendered(client: httpx.AsyncClient, body: dict[str, Any]) -> Prompt | None:
    """Return the prompt of a chat, from the first route of vLLM that tells it."""
    names = ("model", "messages", "chat_template_kwargs")
    chat: dict[str, Any] = {name: body[name] for name in names if name in body}
    for route, sent in ((f"{CHAT}/render", body), ("/tokenize", chat)):
        ids = _ids(await _json(client, route, {**sent, "add_generation_prompt": True}))
        if ids:
            given = {"model": body["model"], "tokens": ids}
            text = str((await _json(client, "/detokenize", given) or {}).get("prompt") or "")
            return Prompt(ids, text, route)
    return None


async def _json(client: httpx.AsyncClient, route: str, body: dict[str, Any]) -> Any:
    try:
        answer = await client.post(route, json=body)
        return answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _ids(answer: Any) -> list[int]:
    """Return the first list of token ids in an answer, wherever a version of vLLM puts it."""
    if isinstance(answer, list):
        return next(filter(None, map(_ids, answer)), [])
    if not isinstance(answer, dict):
        return []
    for key in ("tokens", "token_ids", "prompt_token_ids"):
        value = answer.get(key)
        if isinstance(value, list) and value and all(isinstance(it, int) for it in value):
            return value
    return next(filter(None, map(_ids, answer.values())), [])


async def verdicts_of(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], prompt: Prompt | None
) -> list[Verdict]:
    """Judge the prompt of a request."""
    item = f"tokens at {url}"
    if prompt is None:
        next_step = (
            "vLLM tells tokens at /tokenize, or with --enable-scale-out at "
            "/v1/chat/completions/render; other servers do not"
        )
        return [Verdict(item, "not measurable", "no route tells them", next_step)]
    level, found, todo = await _compared(client, body["model"], prompt)
    is_closed = prompt.text.rfind("<think>") <= prompt.text.rfind("</think>")
    template = Verdict(
        f"chat template at {url}",
        "pass" if is_closed else "look here",
        "the prompt leaves no thought open" if is_closed else "the prompt ends inside <think>",
        "" if is_closed else "serve the model's own chat template: it obeys enable_thinking=false",
    )
    return [Verdict(item, level, found, todo), template]


async def _compared(
    client: httpx.AsyncClient, model: str, prompt: Prompt
) -> tuple[Level, str, str]:
    place = prompt.text.find(TRAINED)
    before = [it for it in _SPECIAL.finditer(prompt.text) if it.end() == place]
    if place < 0 or not before:
        told = "the instruction of training does not stand right after the audio"
        fix = "unset ASR_OMNI_INSTRUCTION, and read below what the template puts between them"
        return "look here", told, fix
    n_places = len(re.findall(f"(?:{re.escape(before[0][0])})+", prompt.text))
    if n_places > 1:
        told = f"the prompt has {n_places} places for one audio"
        fix = "the template adds a placeholder of its own: the text must not contain one"
        return "look here", told, fix
    trained = {"model": model, "prompt": before[0][0] + TRAINED, "add_special_tokens": False}
    expected = _ids(await _json(client, "/tokenize", trained))
    if not expected:
        return "not measurable", "the text is that of training; /tokenize takes no plain text", ""
    n = len(expected)
    is_same = any(prompt.ids[i : i + n] == expected for i in range(len(prompt.ids) - n + 1))
    if is_same:
        return "pass", f"{n - 1} tokens after {before[0][0]}, the same as in training", ""
    told = "the text is that of training, but its tokens are not: the server joins them differently"
    return "look here", told, "compare both token lists; report it to the server's maintainers"


def _shown(text: str) -> str:
    """The prompt around the audio, with many audio tokens written once."""
    once = re.sub(r"(<[^<>\s]+>)\1+", r"\1...", text)
    return repr(once if len(once) < 8 * AROUND else f"{once[: 4 * AROUND]} ... {once[-AROUND:]}")
