from datetime import UTC, datetime, timedelta

import pytest

from ducc.image.platform import LINUX_AMD64
from ducc.wishlist.settings import MAX_TAGS, TagFilter, TooManyTags, WishSettings
from ducc.wishlist.versions import VersionRange

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TAGS = ["1.9", "1.10", "1.10-rc1", "1.11-rc1", "latest", "0.5"]


class Dates:
    """When images were made, in days before now, and who asked."""

    def __init__(self, **days: float | None) -> None:
        self.days = {tag.replace("_", "."): age for tag, age in days.items()}
        self.asked: list[str] = []

    def __call__(self, tag: str) -> datetime | None:
        self.asked.append(tag)
        age = self.days[tag]
        return None if age is None else NOW - timedelta(days=age)


def test_the_defaults_are_what_a_plain_line_has_always_meant():
    settings = WishSettings()
    assert settings.platforms == (LINUX_AMD64,)
    assert settings.products == {"layers", "flat"}
    assert (settings.credentials, settings.keep, settings.priority, settings.ignore_errors) == (None, None, 0, False)
    assert settings.tags.choose(TAGS) == sorted(TAGS)


@pytest.mark.parametrize(
    ("chosen", "tags"),
    [
        (TagFilter(newest=1), ["1.11-rc1"]),
        (TagFilter(newest=2, exclude=("*-rc*",)), ["1.10", "1.9"]),
        (TagFilter(newest=0), []),
        (TagFilter(newest=99), sorted(TAGS)),
        (TagFilter(newest=5), ["0.5", "1.10", "1.10-rc1", "1.11-rc1", "1.9"]),
        (TagFilter(exclude=("latest", "1.*")), ["0.5"]),
        (TagFilter(semver=VersionRange.parse(">=1 <2")), ["1.10", "1.9"]),
        (TagFilter(semver=VersionRange.parse(">=1 <2"), newest=1), ["1.10"]),
        (TagFilter(semver=VersionRange.parse(">=5")), []),
    ],
)
def test_limits_choose_the_same_tags_whatever_their_order_and_repetition(chosen, tags):
    assert chosen.choose(TAGS) == chosen.choose([*reversed(TAGS), *TAGS]) == tags


def test_no_date_is_asked_for_unless_it_decides():
    def created(tag: str) -> datetime:
        raise AssertionError(tag)

    assert TagFilter(newest=1, semver=VersionRange.parse("1.x")).choose(TAGS, created) == ["1.10"]
    assert TagFilter(by="date").choose(["1"], created) == ["1"]


def test_an_age_is_asked_for_from_the_newest_version_down_until_enough_are_found():
    dates = Dates(v5=1, v4=400, v3=2, v2=3, v1=3)
    chosen = TagFilter(newest=2, max_age=timedelta(days=90)).choose(dates.days, dates, NOW)
    assert chosen == ["v3", "v5"]
    assert dates.asked == ["v5", "v4", "v3"]


@pytest.mark.parametrize(("age", "chosen"), [(89.9, ["v1"]), (90, ["v1"]), (90.1, []), (None, ["v1"])])
def test_an_image_is_too_old_only_if_its_date_says_so(age, chosen):
    assert TagFilter(max_age=timedelta(days=90)).choose(["v1"], Dates(v1=age), NOW) == chosen


def test_who_knows_no_dates_finds_nothing_too_old():
    assert TagFilter(max_age=timedelta(days=1)).choose(["v1"]) == ["v1"]


def test_an_age_beyond_the_calendar_excludes_nothing():
    assert TagFilter(max_age=timedelta.max).choose(["v1"], Dates(v1=100_000), NOW) == ["v1"]


def test_the_clock_is_asked_when_nobody_says_what_time_it_is():
    assert TagFilter(max_age=timedelta(days=1)).choose(["v1"], lambda _: datetime.now(UTC)) == ["v1"]
    assert TagFilter(max_age=timedelta(days=1)).choose(["v1"], lambda _: datetime(2020, 1, 1, tzinfo=UTC)) == []


def test_newest_by_date_asks_each_tag_once_and_puts_those_without_date_last():
    dates = Dates(v9=None, v1=1, v2=2, v3=3)
    chosen = TagFilter(newest=2, by="date", max_age=timedelta(days=90)).choose(dates.days, dates, NOW)
    assert chosen == ["v1", "v2"]
    assert sorted(dates.asked) == ["v1", "v2", "v3", "v9"]
    assert TagFilter(newest=4, by="date").choose(dates.days, dates, NOW) == ["v1", "v2", "v3", "v9"]


@pytest.mark.parametrize(
    "chosen",
    [TagFilter(), TagFilter(max_age=timedelta(days=1)), TagFilter(newest=1, by="date"), TagFilter(exclude=("x*",))],
)
def test_more_tags_than_anybody_can_have_meant_are_refused(chosen):
    with pytest.raises(TooManyTags, match="newest"):
        chosen.choose([f"v{number}" for number in range(MAX_TAGS + 1)], lambda _: datetime(2020, 1, 1, tzinfo=UTC), NOW)


def test_who_says_how_many_may_choose_among_a_hundred_thousand():
    tags = [f"v{number}" for number in range(100_000)]
    assert TagFilter(newest=2, max_age=timedelta(days=1)).choose(tags, lambda _: NOW, NOW) == ["v99998", "v99999"]
