"""A signal ends plain code where it is, and an event loop only by cancelling what it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

import pytest

from isthmus.cli import interruptions
from isthmus.cli.interruptions import SIGNALS, Interrupted, ending_on_signals


def _tell(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_plain_code_is_left_at_once_and_the_old_handlers_stand_again(number: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Interrupted) as caught, ending_on_signals():
        _tell(number)
    assert caught.value.number == number
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_coroutine_is_cancelled_and_cleans_up_before_the_exception(number: int) -> None:
    cleaned = []

    async def work() -> None:
        try:
            _tell(number)
            await asyncio.Event().wait()
        finally:
            _tell()  # somebody who presses Ctrl-C again
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(Interrupted) as caught, ending_on_signals():
        interruptions.run(work)
    assert caught.value.number == number
    assert cleaned == [True]


def test_a_signal_that_comes_when_all_is_done_is_not_lost() -> None:
    async def work() -> None:
        _tell()

    with pytest.raises(Interrupted), ending_on_signals():
        interruptions.run(work)


def test_a_signal_that_comes_when_the_loop_has_just_closed_is_what_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old handlers do not stand again yet, and there is nothing left to cancel."""
    closing = asyncio.SelectorEventLoop.close

    def close_and_tell(loop: asyncio.SelectorEventLoop) -> None:
        closing(loop)
        _tell()

    async def work() -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "close", close_and_tell)
    with pytest.raises(Interrupted) as caught, ending_on_signals():
        interruptions.run(work)
    assert caught.value.__cause__ is None  # no error on the way


def test_without_a_signal_it_is_an_event_loop_as_any() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    async def fail() -> None:
        raise KeyError

    with ending_on_signals():
        handlers = [signal.getsignal(each) for each in SIGNALS]
        assert interruptions.run(work) == 7
        with pytest.raises(KeyError):
            interruptions.run(fail)
        assert [signal.getsignal(each) for each in SIGNALS] == handlers


def test_a_signal_at_any_moment_leaves_no_loop_half_made(capfd: pytest.CaptureFixture[str]) -> None:
    """The moments of making and closing a loop are hit by chance: many tries, spread over them."""

    async def work() -> None:
        await asyncio.sleep(0.001)

    main = threading.main_thread().ident
    assert main is not None
    struck = 0
    for number in range(150):
        timer = threading.Timer(number * 2e-5, signal.pthread_kill, (main, signal.SIGTERM))
        try:
            with ending_on_signals():
                timer.start()
                while timer.is_alive():
                    interruptions.run(work)
        except Interrupted:
            struck += 1
        timer.join()
    sys.stderr.flush()
    assert struck == 150
    assert "Traceback" not in capfd.readouterr().err
