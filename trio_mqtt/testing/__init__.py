"""Tools for testing applications that use trio_mqtt."""
