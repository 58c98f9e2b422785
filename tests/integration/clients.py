"""`open_client` for tests that lose connections."""

from __future__ import annotations

from functools import partial

import trio_mqtt

open_client = partial(trio_mqtt.open_client, reconnect_wait_min=0.01, reconnect_wait_max=0.2)
"""One that loses no time between its attempts to connect."""
