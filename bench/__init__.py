"""Measurements beside peers of the same run; figures are printed, never asserted."""
