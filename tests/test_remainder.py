"""What a client that ends still waits for."""

from __future__ import annotations

from trio_mqtt import _packets as p
from trio_mqtt._remainder import Remainder

from .session_driver import Driver


def test_nothing_accepted_is_done() -> None:
    assert Remainder(Driver().session).is_done
    assert Remainder(Driver(attach=False).session).is_done


def test_a_message_at_qos_0_is_done_when_it_is_written() -> None:
    driver = Driver()
    driver.session.publish_at_most_once("t", b"x", retain=False)
    remainder = Remainder(driver.session)
    before = remainder.progress()
    assert not remainder.is_done
    driver.sent()
    assert remainder.is_done
    assert remainder.progress() != before


def test_a_message_at_qos_0_is_done_when_its_connection_is_lost() -> None:
    driver = Driver()
    driver.session.publish_at_most_once("t", b"x", retain=False)
    remainder = Remainder(driver.session)
    driver.lose()
    assert remainder.is_done


def test_each_step_of_an_exchange_is_progress() -> None:
    driver = Driver()
    driver.session.publish("t", b"x", 2, retain=False)
    remainder = Remainder(driver.session)
    seen = [remainder.progress()]
    driver.sent()
    seen.append(remainder.progress())
    driver.receive(p.PubRec(1))
    seen.append(remainder.progress())
    assert not remainder.is_done
    driver.receive(p.PubComp(1))
    seen.append(remainder.progress())
    assert remainder.is_done
    assert len(set(seen)) == 4


def test_pings_and_later_messages_do_not_count() -> None:
    driver = Driver()
    first = driver.session.publish("t", b"x", 1, retain=False)
    driver.sent()
    remainder = Remainder(driver.session)
    before = remainder.progress()
    driver.session.ping()
    driver.session.publish("t", b"later", 1, retain=False)
    assert remainder.progress() == before
    driver.sent()
    assert remainder.progress() == before
    driver.receive(p.PubAck(first.packet_id))
    assert remainder.is_done


def test_a_resend_on_a_new_connection_is_progress() -> None:
    driver = Driver()
    driver.session.publish("t", b"x" * 100, 1, retain=False)
    driver.sent()
    remainder = Remainder(driver.session)
    driver.lose()
    offline = remainder.progress()
    driver.attach(present=True)
    assert remainder.progress() != offline
    assert not remainder.is_done
    driver.receive(p.PubAck(1))
    assert remainder.is_done
