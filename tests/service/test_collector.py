"""Pauses of the garbage collector."""

import gc

import pytest

from asr.service import collector


def test_the_last_pause_ends_it():
    with collector.paused():
        with collector.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_failure_ends_it():
    with pytest.raises(KeyError), collector.paused():
        raise KeyError
    assert gc.isenabled()


def test_pauses_that_never_end_are_ended(monkeypatch):
    monkeypatch.setattr(collector, "MAX_SECONDS", -1)
    with collector.paused():
        assert not gc.isenabled()
        with collector.paused():
            assert gc.isenabled()
    assert gc.isenabled()
