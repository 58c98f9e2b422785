"""The pytest plugin, in a pytest of its own as applications run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TESTS = """
import pytest
import trio
import trio_mqtt

@pytest.mark.trio
async def test_a_message_comes_back(mqtt_broker, mqtt_client, autojump_clock):
    async with mqtt_client.open_subscription("a") as messages:
        await mqtt_client.publish("a", "b", qos=1)
        assert (await messages.receive()).payload == b"b"
    assert mqtt_client.online

@pytest.mark.trio
@pytest.mark.mqtt_broker(fail_filters=("a",))
@pytest.mark.mqtt_client(client_id="mine", keep_alive=7)
async def test_options_are_marks(mqtt_broker, mqtt_client, autojump_clock):
    assert "mine" in mqtt_broker.sessions
    with pytest.raises(trio_mqtt.SubscribeError):
        await mqtt_client.subscribe("a")

@pytest.mark.trio
async def test_an_outage_takes_no_time(mqtt_broker, mqtt_client, autojump_clock):
    await trio.sleep(86_400)
    mqtt_broker.disconnect_all()
    await mqtt_client.wait_offline()
    await mqtt_client.wait_online()

@pytest.mark.trio
async def test_a_violation_fails(mqtt_broker, autojump_clock):
    stream = await mqtt_broker.dialer()
    await stream.send_all(b"\\xc0\\0")  # PINGREQ in the place of CONNECT
    await trio.sleep(1)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("options", [[], ["-o", "trio_mode=true"]])
def test_the_fixtures(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_application.py").write_text(TESTS, encoding="utf-8")
    done = run(tmp_path, "-m", "pytest", "-q", "--strict-markers", "-W", "error", *options)
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "client '': PingReq comes before CONNECT" in done.stdout
    assert "FAILED test_application.py::test_a_violation_fails" in done.stdout


def test_it_imports_nothing_of_the_library_before_it_is_asked(tmp_path: Path) -> None:
    check = "import sys, pytest_trio_mqtt; print([m for m in sys.modules if 'trio' in m])"
    done = run(tmp_path, "-c", check)
    assert done.stdout.strip() == "['pytest_trio_mqtt']", done.stderr


def test_the_library_never_needs_pytest(tmp_path: Path) -> None:
    (tmp_path / "pytest.py").write_text("raise ImportError('not installed')", encoding="utf-8")
    code = "import sys; sys.path.insert(0, '.'); import trio_mqtt.testing; print('fine')"
    done = run(tmp_path, "-c", code)
    assert done.stdout.strip() == "fine", done.stderr
