"""Asterisk: the queue log of app_queue, one line per event."""
