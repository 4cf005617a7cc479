"""Delimited text files, read by a mapping that needs no Python."""
