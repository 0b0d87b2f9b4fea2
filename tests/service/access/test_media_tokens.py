"""Tokens for players."""

import base64

import pytest

from asr.service.access.client_secrets import FILE, ClientSecrets
from asr.service.access.keys import Keyring
from asr.service.access.media_tokens import SECONDS, MediaTokens
from asr.service.errors import Expired
from asr.settings import Settings
from tests.service.access.test_keys import Clock, lines

JOB, OTHER = "a" * 32, "b" * 32


def ring(**keys):
    return Keyring(Settings(api_keys="".join(lines({n: {"key": k} for n, k in keys.items()}))))


@pytest.fixture
def made(tmp_path):
    """Tokens of a service with the keys a and b, and the clock."""
    clock = Clock(1000.0)
    return MediaTokens(ring(a="one", b="two"), tmp_path / FILE, clock), clock


def test_a_token_belongs_to_its_job_and_its_owner(made):
    tokens, _ = made
    token, expires_at = tokens.make("a", JOB)
    assert expires_at == 1000 + SECONDS
    assert tokens.owner_of(token, JOB) == "a"
    assert tokens.owner_of(token, OTHER) is None


def test_a_token_ends(made):
    tokens, clock = made
    token, expires_at = tokens.make("a", JOB)
    clock.seconds = expires_at - 1
    assert tokens.owner_of(token, JOB) == "a"
    clock.seconds = expires_at
    with pytest.raises(Expired):
        tokens.owner_of(token, JOB)


def test_no_changed_token_is_accepted(made):
    tokens, _ = made
    token, _ = tokens.make("a", JOB)
    data = bytearray(base64.urlsafe_b64decode(token[3:] + "=="))
    for place in range(len(data)):
        changed = bytes([*data[:place], data[place] ^ 1, *data[place + 1 :]])
        assert tokens.owner_of("mt_" + base64.urlsafe_b64encode(changed).decode(), JOB) is None
    for wrong in ("", "mt_", "mt_é", "ek_" + token[3:], token[3:], token + "A" * 300, token[:-4]):
        assert tokens.owner_of(wrong, JOB) is None


def test_a_token_ends_with_its_key(made, tmp_path):
    token, _ = made[0].make("a", JOB)
    for keys, owner in ((ring(a="one"), "a"), (ring(a="other"), None), (ring(b="two"), None)):
        assert MediaTokens(keys, tmp_path / FILE, Clock(1000.0)).owner_of(token, JOB) == owner


def test_other_signatures_of_the_server_are_no_tokens(made, tmp_path):
    tokens, clock = made
    key, _ = ClientSecrets(ring(a="one"), tmp_path / FILE, clock).make("a", {}, 60)
    tokens.make("a", JOB)
    assert tokens.owner_of(key, JOB) is None
    assert tokens.owner_of("mt_" + key[3:], JOB) is None


def test_without_a_secret_no_token_is_genuine(made, tmp_path):
    token, _ = made[0].make("a", JOB)
    other = MediaTokens(ring(a="one"), tmp_path / "other", Clock(1000.0))
    assert other.owner_of(token, JOB) is None
    other.make("a", JOB)
    assert other.owner_of(token, JOB) is None
