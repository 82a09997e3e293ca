"""Jobs from a notebook."""

from collections.abc import Iterator

import hearth
import pytest

from tests.support.job_tools import put_tools
from tests.support.server_process import REPOSITORY, Server, end, start


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hearth.Lab]:
    """A connection to a server with the tools in the workspace `jobs`."""
    made: Server = start(tmp_path_factory.mktemp("client") / "server", REPOSITORY, {"JOB_GRACE": 1})
    try:
        made.wait_until_ready()
        put_tools(made, "jobs")
        yield hearth.connect(made.url, "jobs", made.token)
    finally:
        end(made)


def test_a_job_from_its_start_to_its_end(lab: hearth.Lab) -> None:
    job = lab.start_job("nap", {"seconds": 1})
    assert job.state in ("queued", "running")
    done = lab.wait_for_job(job.job)
    assert (done.state, done.result) == ("succeeded", "rested")
    assert lab.job_log(job.job).startswith("rested in ")
    assert lab.wait_for_job(job.job) == done
    shown = repr(lab.jobs())
    assert job.job in shown and "nap(seconds=1)" in shown and "rested" in shown
    assert job.job in [one.job for one in lab.jobs(state="succeeded")]


def test_cancel_and_retry(lab: hearth.Lab) -> None:
    job = lab.start_job("nap", {"seconds": 60})
    assert lab.cancel_job(job.job).state == "cancelled"
    again = lab.retry_job(job.job)
    assert again.job != job.job and again.input == {"seconds": 60}
    assert lab.cancel_job(again.job).state == "cancelled"
    with pytest.raises(hearth.HearthError) as raised:
        lab.cancel_job(again.job)
    assert raised.value.code == "job_ended"


def test_a_failed_job_says_why(lab: hearth.Lab) -> None:
    done = lab.wait_for_job(lab.start_job("fail", {"reason": "no more tin"}).job)
    assert done.state == "failed" and done.error is not None and "no more tin" in done.error
