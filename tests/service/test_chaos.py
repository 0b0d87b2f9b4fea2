"""Every accepted job ends correctly, whatever fails on the server: ``make test-chaos``.

The figures are printed.
"""

import pytest

from tests.support import failures
from tests.support.calamities import PROCESSES, calamities, report


def check(out, n_jobs, n_kills):
    accepted = out.client.accepted
    assert sum(n for what, n in out.site.done.items() if what.startswith("kill")) == n_kills
    assert len(accepted) == len(set(accepted.values())) == n_jobs
    assert out.differing == []
    assert out.client.attempts > n_jobs, "nothing hit a job"
    assert set(out.synchronous) <= {200, 503, 504, "no answer"}
    assert out.synchronous[200]


@pytest.mark.slow
@pytest.mark.kill
def test_fifty_kills_of_any_process(tmp_path):
    out = calamities(tmp_path, n_jobs=24, n_kills=50)
    report(out, 0)
    check(out, 24, 50)
    assert {f"kill {kind}" for kind in PROCESSES} <= set(out.site.done)


@pytest.mark.slow
@pytest.mark.kill
def test_kills_with_moonshine(tmp_path):
    out = calamities(tmp_path, n_jobs=8, n_kills=18, engine="moonshine", seed=1)
    report(out, 0)
    check(out, 8, 18)


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.parametrize("scenario", [it.__name__ for it in failures.SCENARIOS])
def test_jobs_survive(scenario):
    figures = failures.run(scenario)
    print(figures)
    n_jobs = failures.N_JOBS.get(scenario, failures.FEW)
    assert figures.startswith(f"{scenario:12} jobs: {{'succeeded': {n_jobs}}}"), figures
    assert "did not transcribe" not in figures
