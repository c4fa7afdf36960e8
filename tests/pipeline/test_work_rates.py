"""The rates of processes and machines, and the stage that is slowest."""

import io
import json

import pytest

from mribatch.pipeline.executor.events import Lost, Maker, Told
from mribatch.pipeline.executor.messages import PartMade, Rows
from mribatch.pipeline.progress import BarProgress, LineProgress, SeveralProgress
from mribatch.pipeline.progress_events import ProgressEvents
from mribatch.pipeline.stopwatch import DECODING, INFERENCE, WAITING, WRITING, Stopwatch
from mribatch.pipeline.work_rates import MakerRate, WorkRates, WorkWatch
from tests.pipeline.test_progress_events import check


def make(watch: WorkWatch, number: int, host: str, part: int, rows: int, seconds: float) -> WorkRates:
    maker = Maker(number, host)
    for count in (rows // 2, rows - rows // 2):
        assert watch.take(Told(maker, Rows(part, {"ok": count}, None))) is None
    stages = {INFERENCE: seconds * 0.7, WAITING: seconds * 0.2, WRITING: seconds * 0.1, DECODING: 5.0}
    rates = watch.take(Told(maker, PartMade(part, stages)))
    assert rates is not None
    return rates


def test_the_rate_of_a_process_is_that_of_its_last_part() -> None:
    watch = WorkWatch(lambda: 7.0)
    make(watch, 2, "a", 0, 1000, 10.0)
    make(watch, 1, "a", 1, 1024, 4.0)
    rates = make(watch, 2, "a", 2, 1000, 5.0)
    assert [(one.number, one.host, one.made) for one in rates.makers] == [(1, "a", 7.0), (2, "a", 7.0)]
    assert [one.images_per_second for one in rates.makers] == pytest.approx([256.0, 200.0])
    assert rates.bottleneck == "inference"
    assert str(rates) == "worker 1 256, worker 2 200 images/s; slowest stage: inference"


def test_who_died_has_no_rate_and_its_rows_do_not_count_twice() -> None:
    watch = WorkWatch()
    make(watch, 1, "a", 0, 100, 1.0)
    watch.take(Told(Maker(1, "a"), Rows(1, {"ok": 60}, None)))
    watch.lose(Lost(1, 1, {"ok": 60}))
    assert watch.rates().makers == ()
    rates = make(watch, 2, "a", 1, 100, 1.0)
    assert [one.images_per_second for one in rates.makers] == pytest.approx([100.0])


def test_seconds_of_many_are_those_of_the_clock() -> None:
    work, watch = WorkWatch(), Stopwatch()
    for number in range(4):
        make(work, number, "a", number, 100, 8.0)
    work.settle(watch, 10.0)
    assert watch.in_rows == pytest.approx(10.0) and watch.seconds[INFERENCE] == pytest.approx(7.0)
    assert watch.seconds[DECODING] == pytest.approx(20.0), "core-seconds"
    WorkWatch().settle(Stopwatch(), 1.0)


def rates_of(*hosts: tuple[str, float]) -> WorkRates:
    return WorkRates(tuple(MakerRate(number, *one, 0.0) for number, one in enumerate(hosts, 1)), "decoding")


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        (rates_of(("a", 100.4)), "worker 1 100 images/s"),
        (rates_of(*[("a", 100.0 + i) for i in range(5)]), "5 workers, 100 to 104 images/s each"),
        (rates_of(("a", 90), ("a", 110), ("b", 50)), "a 2 × 100, b 50 images/s"),
        (rates_of(*[(f"n{i}", 40.0) for i in range(6)], ("n0", 40.0)), "6 machines, 40 to 80 images/s each"),
    ],
)
def test_many_are_shown_in_few_words(rates: WorkRates, text: str) -> None:
    assert str(rates) == f"{text}; slowest stage: decoding"


def test_bar_lines_and_events_show_them() -> None:
    bar, lines, events = io.StringIO(), io.StringIO(), io.StringIO()
    clock = iter(range(0, 1000, 20))
    shown = SeveralProgress(
        BarProgress(bar), LineProgress(lines, lambda: float(next(clock))), ProgressEvents(events, lambda: 0.0)
    )
    shown.start(1000, 0)
    rates = rates_of(("a", 100), ("b", 50))
    shown.worked(rates)
    shown.worked(rates)
    shown.advance(10, 1)
    shown.close()
    assert lines.getvalue().endswith(f"1 failed ({rates})\n")
    (told,) = [one for one in map(json.loads, events.getvalue().splitlines()) if one["event"] == "workers"]
    check([told])
    assert told["workers"][1] == {"worker": 2, "host": "b", "images_per_second": 50.0}
