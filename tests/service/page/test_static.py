"""The files of the page and of the documentation."""

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from asr.service.app import Application
from asr.service.http.problems import Problem
from asr.service.page.static import SWAGGER, WEB, StaticFiles
from asr.settings import Settings
from tests.support.serving import HTTP

KEY = {"authorization": "Bearer key-a"}


@pytest.fixture(scope="module")
def server(keyed):
    return keyed


def get(files, name, **headers):
    given = [(key.replace("_", "-").encode(), it.encode()) for key, it in headers.items()]
    request = Request({"type": "http", "method": "GET", "headers": given})
    return asyncio.run(files.answer(request, name))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vendor").mkdir()
    (tmp_path / "index.html").write_text('<meta name="nonce" content="{{nonce}}"> {{nonce}}')
    (tmp_path / "app.js").write_text("let a = 1;")
    (tmp_path / "vendor" / "LICENSE").write_text("BSD")
    (tmp_path / "secret.py").write_text("x = 1")
    return tmp_path


def test_files_are_sent_with_their_type_and_can_be_revalidated(folder):
    files = StaticFiles(folder)
    answer = get(files, "app.js")
    assert answer.body == b"let a = 1;"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    tag = answer.headers["etag"]
    again = get(files, "app.js", if_none_match=tag)
    assert (again.status_code, again.body, again.headers["etag"]) == (304, b"", tag)
    (folder / "app.js").write_text("let a = 22;")
    assert get(files, "app.js", if_none_match=tag).status_code == 200
    assert get(files, "vendor/LICENSE").headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "name", ["", "vendor", "../app.js", "vendor/../app.js", "/app.js", "secret.py", "App.js", "\0"]
)
def test_no_other_file_is_sent(folder, name):
    with pytest.raises(Problem) as refused:
        get(StaticFiles(folder), name)
    assert refused.value.status == 404


def test_a_missing_folder_has_no_files(tmp_path):
    with pytest.raises(Problem):
        get(StaticFiles(tmp_path / "none"), "index.html")


def test_each_answer_has_its_own_nonce(folder):
    found = set()
    for _ in range(2):
        answer = get(StaticFiles(folder), "index.html")
        (nonce,) = set(re.findall(r'content="(.+?)"| (\S+)$', answer.body.decode())[0]) - {""}
        assert answer.body.decode().count(nonce) == 2
        assert f"style-src 'self' 'nonce-{nonce}';" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers
        found.add(nonce)
    assert len(found) == 2


def test_the_policy_allows_no_inline_code_and_no_other_host(folder):
    policy = get(StaticFiles(folder), "app.js").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy


def test_the_page_needs_no_key(server):
    config = HTTP.get(f"{server.url}/page/config.json")
    assert config.status_code == 200
    assert config.json()["needs_key"] is True
    assert config.json()["uploads"] == "/v1/uploads"
    expected = 200 if (WEB / "index.html").exists() else 404
    assert HTTP.get(f"{server.url}/").status_code == expected
    for path in ("/page/none.js", "/page/../v1/jobs", "/page/index.html", "/page/%2e%2e/app.py"):
        answer = HTTP.get(server.url + path)
        assert answer.status_code in (404, 401), path
        assert answer.json()["error"]["message"]


def test_the_page_can_be_turned_off(tmp_path):
    settings = Settings(page=False, data_dir=str(tmp_path), work_dir=str(tmp_path))
    app, made = FastAPI(), Application(None, settings, tmp_path, tmp_path)
    made.page.install(app)
    app.add_exception_handler(Problem, lambda _, problem: problem.response())

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("/", "/page/config.json", "/page/app.js"):
                answer = await client.get(path)
                assert answer.status_code == 404
                assert answer.json()["error"]["type"] == "not_found_error"
            assert (await client.get("/docs")).status_code == 200

    asyncio.run(run())


def test_the_documentation_loads_nothing_from_another_host(server):
    page = HTTP.get(f"{server.url}/docs", headers=KEY)
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 4
    for name in named:
        assert "//" not in name
        assert HTTP.get(f"{server.url}/{name}", headers=KEY).status_code == 200
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=", page.text)
    assert "unsafe" not in page.headers["content-security-policy"]
    moved = HTTP.get(f"{server.url}/redoc", headers=KEY, follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "/docs")


@pytest.mark.parametrize(
    "path",
    ["/page/none.js", "/page", "/v1/jobs", "/v1/none", "/none", "/docs/none", "/redoc", "/health"],
)
def test_every_answer_has_a_policy_and_nosniff(server, path):
    for sent in ({}, KEY):
        answer = HTTP.get(server.url + path, headers=sent, follow_redirects=False)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_documentation_comes_with_its_licence():
    assert "Apache License" in (SWAGGER / "LICENSE").read_text()
    assert "sourceMappingURL" not in (SWAGGER / "swagger-ui-bundle.js").read_text()[-1000:]
