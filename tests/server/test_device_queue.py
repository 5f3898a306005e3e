import threading
import time
from contextlib import contextmanager

import pytest

from profiler.interface import Pause, Resume
from server.cancellation import Cancellation, CancelledError
from server.device_queue import DeviceQueue, QueueFullError

SOON_S = 30.0


class User:
    """Somebody on a thread of their own who uses the device until told to leave."""

    def __init__(self, enter):
        self.cancellation = Cancellation()
        self.has_it = threading.Event()
        self.leave = threading.Event()
        self.error = None
        self._enter = enter
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            with self._enter(self.cancellation):
                self.has_it.set()
                self.leave.wait(SOON_S)
        except Exception as error:  # told to the test
            self.error = error

    def done(self):
        self.leave.set()
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()


@pytest.fixture
def queue():
    return DeviceQueue(max_waiting=2)


@pytest.fixture
def users(queue):
    started = []

    def start(enter=queue.measurement):
        user = User(enter)
        started.append(user)
        return user

    yield start
    for user in started:
        user.done()


@pytest.fixture
def campaign(queue):
    """A campaign whose worker's messages are kept."""

    @contextmanager
    def enter():
        told = []
        with queue.campaign(Cancellation()) as turn, turn.working(told.append):
            yield turn, told

    return enter


def eventually(condition):
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.005)


def test_measurements_take_their_turns_in_the_order_they_came(queue, users):
    first = users()
    assert first.has_it.wait(SOON_S)
    second = users()
    eventually(lambda: queue.waiting == 1)
    third = users()
    eventually(lambda: queue.waiting == 2)
    assert not second.has_it.is_set()
    first.done()
    assert second.has_it.wait(SOON_S)
    assert not third.has_it.wait(0.05)
    second.done()
    assert third.has_it.wait(SOON_S)


def test_a_full_queue_takes_no_more(queue, users):
    first = users()
    assert first.has_it.wait(SOON_S)
    for waiting in (1, 2):
        users()
        eventually(lambda: queue.waiting == waiting)  # noqa: B023 - called within the loop
    with pytest.raises(QueueFullError, match="2 more wait"), queue.measurement(Cancellation()):
        pass


def test_one_that_is_called_off_leaves_the_line_at_once(queue, users):
    first = users()
    assert first.has_it.wait(SOON_S)
    second, third = users(), users()
    eventually(lambda: queue.waiting == 2)
    second.cancellation.cancel()
    second.thread.join(SOON_S)
    assert isinstance(second.error, CancelledError)
    assert not second.has_it.is_set()
    first.done()
    assert third.has_it.wait(SOON_S)


def test_a_campaign_makes_room_at_its_next_point_and_goes_on_afterwards(queue, users, campaign):
    with campaign() as (turn, told):
        live = users()
        eventually(lambda: told == [Pause()])
        assert not live.has_it.wait(0.05)
        turn.paused()
        assert live.has_it.wait(SOON_S)
        assert told == [Pause()]
        live.done()
        assert told == [Pause(), Resume()]


def test_a_campaign_stays_paused_while_others_wait(queue, users, campaign):
    with campaign() as (turn, told):
        first = users()
        eventually(lambda: told == [Pause()])
        second = users()
        eventually(lambda: queue.waiting == 1)
        turn.paused()
        assert first.has_it.wait(SOON_S)
        first.done()
        assert second.has_it.wait(SOON_S)
        assert told == [Pause()]
        second.done()
        assert told == [Pause(), Resume()]


def test_an_answer_to_an_earlier_request_frees_nothing(queue, users, campaign):
    with campaign() as (turn, told):
        gone = users()
        eventually(lambda: told == [Pause()])
        gone.cancellation.cancel()
        gone.thread.join(SOON_S)
        assert told == [Pause(), Resume()]
        live = users()
        eventually(lambda: told == [Pause(), Resume(), Pause()])
        turn.paused()  # the answer to the first
        assert not live.has_it.wait(0.05)
        turn.paused()
        assert live.has_it.wait(SOON_S)


def test_a_campaign_is_asked_even_before_its_worker_is_there(queue, users):
    with queue.campaign(Cancellation()) as turn:
        live = users()
        eventually(lambda: queue.measuring)
        assert not live.has_it.wait(0.05)
        told = []
        with turn.working(told.append):
            assert told == [Pause()]
            turn.paused()
            assert live.has_it.wait(SOON_S)


def test_a_measurement_goes_on_when_the_campaign_ends(queue, users, campaign):
    with campaign() as (_turn, told):
        live = users()
        eventually(lambda: told == [Pause()])
        assert not live.has_it.is_set()
    assert live.has_it.wait(SOON_S)


def test_a_campaign_waits_for_those_in_line(queue, users):
    live = users()
    assert live.has_it.wait(SOON_S)
    campaign = users(queue.campaign)
    assert not campaign.has_it.wait(0.05)
    assert queue.busy
    live.done()
    assert campaign.has_it.wait(SOON_S)


def test_a_campaign_is_told_before_it_uses_the_device():
    told = []
    queue = DeviceQueue(2, lambda: told.append(queue.busy))
    with queue.measurement(Cancellation()):
        assert not queue.has_campaign
    assert told == []
    with queue.campaign(Cancellation()):
        assert told == [True]
        assert queue.has_campaign
    assert not queue.has_campaign


def test_a_waiting_campaign_can_be_called_off(queue, users):
    live = users()
    assert live.has_it.wait(SOON_S)
    campaign = users(queue.campaign)
    campaign.cancellation.cancel()
    campaign.thread.join(SOON_S)
    assert isinstance(campaign.error, CancelledError)
    live.done()
    assert not queue.busy


def test_what_was_called_off_before_it_came_gets_nothing(queue):
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError), queue.measurement(cancellation):
        pass
    assert not queue.busy


def test_callbacks_of_a_cancellation_are_called_once():
    calls = []
    cancellation = Cancellation()
    with cancellation.calling(lambda: calls.append("inside")):
        cancellation.cancel()
        cancellation.cancel()
    with cancellation.calling(lambda: calls.append("late")):
        pass
    assert calls == ["inside", "late"]


def test_a_block_that_is_left_is_not_called():
    calls = []
    cancellation = Cancellation()
    with cancellation.calling(lambda: calls.append("left")):
        pass
    cancellation.cancel()
    assert calls == []
