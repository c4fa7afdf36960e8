"""Threads work ahead, results come in order, and an item that never returns does not stop the others."""

import threading
import time

import pytest

from mribatch.pipeline.threads import WorkerThreads


def late(item: int) -> str:
    return f"{item} was late"


def test_results_belong_to_their_items_whatever_finishes_first() -> None:
    def work(item: int) -> str:
        time.sleep(0.02 if item % 3 == 0 else 0.0)
        return str(item)

    with WorkerThreads(work, 4, 10, late) as pool:
        tickets = [pool.submit(item) for item in range(50)]
        assert [pool.result(ticket) for ticket in tickets] == [str(item) for item in range(50)]


def test_an_exception_is_raised_where_the_result_is_asked_for() -> None:
    with WorkerThreads(lambda item: str(1 // item), 2, 10, late) as pool:
        tickets = [pool.submit(item) for item in (1, 0, 1)]
        assert pool.result(tickets[0]) == "1"
        with pytest.raises(ZeroDivisionError):
            pool.result(tickets[1])
        assert pool.result(tickets[2]) == "1"


def test_stuck_threads_are_replaced_and_the_rest_goes_on() -> None:
    gate = threading.Event()

    def work(item: int) -> str:
        if item < 3:
            gate.wait()
        return str(item)

    with WorkerThreads(work, 2, 0.2, late) as pool:
        tickets = [pool.submit(item) for item in range(8)]
        answers = [pool.result(ticket) for ticket in tickets]
    gate.set()
    assert answers == ["0 was late", "1 was late", "2 was late", "3", "4", "5", "6", "7"]


def test_time_spent_waiting_in_the_queue_is_not_the_items_own() -> None:
    def work(item: int) -> str:
        time.sleep(0.15)
        return str(item)

    with WorkerThreads(work, 1, 0.4, late) as pool:
        tickets = [pool.submit(item) for item in range(5)]
        assert [pool.result(ticket) for ticket in tickets] == list("01234")


def test_leaving_does_not_begin_what_is_queued() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(item: int) -> str:
        begun.append(item)
        gate.wait(5)
        return str(item)

    with WorkerThreads(work, 1, 10, late) as pool:
        for item in range(20):
            pool.submit(item)
        while not begun:
            time.sleep(0.001)
    gate.set()
    time.sleep(0.05)
    assert begun == [0]
