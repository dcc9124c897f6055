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


def test_the_handlers_that_were_there_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
