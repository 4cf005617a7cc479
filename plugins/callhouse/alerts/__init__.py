"""Alerts: `rules` enters what is watched, warehouse/alerts.sql says what fires, `notifier` tells.

Light to import: Superset's environment uses `link` and `messages` for the page of an alert.
"""
