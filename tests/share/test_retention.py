"""What is kept and what goes, as a rule: no share, no clock."""

from dataclasses import replace
from typing import Any

import pytest

from golem_magic.model import JobId
from golem_magic.share.retention import DAY_S, GIB, Family, Limits, choose

pytestmark = pytest.mark.unit


def family(name: str, days: float, *, gib: float = 0.0, read: bool = False, **more: Any) -> Family:
    return Family(jobs=[JobId(name)], age_s=days * DAY_S, n_bytes=int(gib * GIB), is_read=read, **more)


def gone(families: list[Family], **limits: Any) -> str:
    """The names of what goes, in that order."""
    going, _ = choose(families, Limits(**limits))
    return "".join(job_id for family, _ in going for job_id in family.jobs)


def why(one: Family, **limits: Any) -> str:
    (pair,) = choose([one], Limits(**limits))[0]
    return pair[1]


def test_read_jobs_stay_a_week_and_unread_ones_a_month() -> None:
    families = [
        family("a", 6.9, read=True),
        family("b", 7.1, read=True),
        family("c", 29.9),
        family("d", 30.1),
    ]

    assert gone(families) == "db"
    assert why(families[1]) == "read, over for more than 7 days"
    assert why(families[3]) == "unread, over for more than 30 days"


def test_the_oldest_read_jobs_go_until_the_rest_is_small_enough() -> None:
    families = [family(name, days, gib=6, read=True) for name, days in zip("abcd", (1, 4, 2, 3), strict=True)]

    assert gone(families) == "b"  # 24 GiB, 20 allowed
    assert gone(families, max_bytes=11 * GIB) == "bdc"
    assert gone(families, max_bytes=None) == ""
    assert gone(families, max_jobs=2) == "bd"
    assert why(family("a", 1, gib=21, read=True)) == "read, and all jobs take more than 20 GiB"
    assert why(family("a", 1, read=True), max_jobs=0) == "read, and there are more than 0 jobs"


def test_no_limit_but_age_takes_what_nobody_has_read() -> None:
    families = [family("a", 29, gib=1000), family("b", 1, gib=1, read=True)]

    going, kept = choose(families, Limits(max_bytes=0, max_jobs=0))

    assert [(family.jobs, why) for family, why in going] == [
        (["b"], "read, and all jobs take more than 0 GiB")
    ]
    assert kept == {"unread, finished too short a time ago": 1}


def test_what_goes_by_age_counts_no_more_when_space_is_asked_for() -> None:
    families = [family("a", 40, gib=15), family("b", 2, gib=15, read=True)]

    assert gone(families) == "a"


def test_what_somebody_is_busy_with_stays_whatever_the_limits() -> None:
    busy = family("a", 100, gib=100, read=True, stays="in use")

    going, kept = choose([busy], Limits(read_s=0, unread_s=0, max_bytes=0, max_jobs=0))

    assert (going, kept) == ([], {"in use": 1})


@pytest.mark.parametrize(
    ("days", "silent_days", "older_days", "goes"),
    [
        (31, 1, 30, True),
        (29, 1, 30, False),
        (1.1, 1, 0, True),
        (0.9, 1, 0, False),  # its client may sleep
        (29, 30, 0, False),  # its workers may stand in a queue
        (31, 30, 0, True),
    ],
)
def test_a_job_without_a_sign_of_life_is_given_up_late(
    days: float, silent_days: float, older_days: float, goes: bool
) -> None:
    one = family("a", days, given_up_s=silent_days * DAY_S)

    assert (gone([one], unread_s=older_days * DAY_S, read_s=0) == "a") is goes


@pytest.mark.parametrize("older_days", [0, 30])
def test_a_half_made_job_has_a_day(older_days: float) -> None:
    young, old = family("a", 0.9, is_half_made=True), family("b", 1.1, is_half_made=True)

    assert gone([young, old], read_s=older_days * DAY_S, unread_s=older_days * DAY_S) == "b"


def test_each_reason_to_stay_is_counted_for_every_job_of_a_family() -> None:
    both = replace(family("a", 1), jobs=[JobId("a"), JobId("b")])

    assert choose([both, family("c", 1, given_up_s=DAY_S)], Limits())[1] == {
        "unread, finished too short a time ago": 2,
        "not finished": 1,
    }
