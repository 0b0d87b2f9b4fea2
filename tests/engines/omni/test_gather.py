"""When our vLLM scheduler starts chunks; fake vLLM scheduler (tests/vllm has the real one)."""

import importlib
import sys
from types import ModuleType

import pytest
from hypothesis import given, strategies as st

MODULE = "asr.engines.omni.gather"
PARENT = "vllm.v1.core.sched.async_scheduler"
N_STEPS = 5
"""Steps that an answer takes."""


class Scheduler:
    """Like vLLM's scheduler: waiting requests start as long as there is room."""

    limit_name = "max_num_running_reqs"

    def __init__(self, limit):
        setattr(self, self.limit_name, limit)
        self.running = []
        self.n_waiting = 0

    def get_request_counts(self):
        return len(self.running), self.n_waiting

    def schedule(self, *, fails=False):
        if fails:
            raise RuntimeError
        assert len(self.running) <= getattr(self, self.limit_name)
        n_new = min(self.n_waiting, getattr(self, self.limit_name) - len(self.running))
        self.n_waiting -= n_new
        self.running = [left - 1 for left in self.running if left > 1] + [N_STEPS] * n_new
        return n_new


class NewerScheduler(Scheduler):
    """Like a newer vLLM's scheduler, which has two limits and reads this one."""

    max_num_running_reqs = 10**6
    limit_name = "max_num_active_reqs"


@pytest.fixture(params=[Scheduler, NewerScheduler], scope="module")
def gathering(request):
    """Our scheduler class on top of a fake vLLM scheduler."""
    parent = ModuleType(PARENT)
    parent.AsyncScheduler = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, PARENT, parent)
        patch.delitem(sys.modules, MODULE, raising=False)
        yield importlib.import_module(MODULE).GatheringScheduler
    sys.modules.pop(MODULE, None)


def test_a_chunk_alone_begins_at_once(gathering):
    scheduler = gathering(8)
    scheduler.n_waiting = 1
    assert scheduler.schedule() == 1


def test_few_wait_for_more(gathering):
    scheduler = gathering(64)
    scheduler.running, scheduler.n_waiting = [N_STEPS] * 20, 7
    assert scheduler.schedule() == 0
    scheduler.n_waiting += 1
    assert scheduler.schedule() == 8


def test_few_that_have_room_wait_though_many_are_there(gathering):
    scheduler = gathering(22)
    scheduler.running, scheduler.n_waiting = [N_STEPS] * 20, 500
    assert scheduler.schedule() == 0


def test_the_limit_is_back_after_a_failure(gathering):
    scheduler = gathering(64)
    scheduler.running, scheduler.n_waiting = [N_STEPS] * 20, 1
    with pytest.raises(RuntimeError):
        scheduler.schedule(fails=True)
    assert getattr(scheduler, scheduler.limit_name) == 64


@given(
    arrivals=st.lists(st.integers(0, 12), min_size=1, max_size=200),
    limit=st.integers(1, 40),
    share=st.floats(0, 2),
    patience=st.integers(0, 8),
)
def test_nobody_waits_longer_than_the_patience_where_there_is_room(
    gathering, arrivals, limit, share, patience
):
    scheduler = gathering(limit)
    scheduler.share, scheduler.patience = share, patience
    n_held = n_begun = 0
    for n_new in [*arrivals, *[0] * (N_STEPS + 1 + patience) * sum(arrivals)]:
        scheduler.n_waiting += n_new
        could = scheduler.n_waiting and len(scheduler.running) < limit
        begun = scheduler.schedule()
        n_begun += begun
        n_held = n_held + 1 if could and not begun else 0
        assert n_held <= patience
        assert getattr(scheduler, scheduler.limit_name) == limit
    assert n_begun == sum(arrivals)
