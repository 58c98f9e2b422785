"""Runs the command line: ``python3 -m trio_mqtt``."""

from __future__ import annotations

import sys

from _trio_mqtt_command import main

if __name__ == "__main__":
    sys.exit(main(program="python3 -m trio_mqtt"))
