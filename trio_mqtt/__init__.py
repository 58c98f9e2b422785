"""An MQTT client for Trio."""
