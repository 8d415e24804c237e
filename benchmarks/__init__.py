"""Measurements: one question per script, floor and figures printed."""
