"""Signals: at once while starting, in order while training, at once again when asked twice."""

import os
import signal

import pytest

from ace_ray.coevolution.signals import Stopped, StopSignals

pytestmark = pytest.mark.unit


def test_outside_of_the_loop_a_signal_stops_at_once():
    with pytest.raises(Stopped) as stopped, StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143 and str(stopped.value) == "SIGTERM"


def test_in_the_loop_the_first_signal_is_noted_and_the_second_stops():
    with pytest.raises(Stopped) as stopped, StopSignals() as signals:
        signals.deferred = True
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.signum == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert stopped.value.code == 130


def test_while_held_a_signal_waits_for_the_end_of_the_block():
    done = False
    with pytest.raises(Stopped) as stopped, StopSignals() as signals, signals.held():
        os.kill(os.getpid(), signal.SIGINT)
        done = True
    assert done and stopped.value.code == 130


def test_the_handlers_that_were_there_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_compiled_code_makes_of_the_exception_is_still_the_signal():
    with pytest.raises(Stopped) as stopped, StopSignals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Stopped as inside:
            raise SystemError("returned a result with an exception set") from inside
    assert stopped.value.code == 130


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(ValueError, match="mine"), StopSignals():
        raise ValueError("mine")
