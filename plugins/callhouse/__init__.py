"""Callhouse: a call-centre data warehouse."""

__version__ = "0.1.0"
