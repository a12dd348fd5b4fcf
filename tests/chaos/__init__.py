"""Campaigns that kill, starve and lie to whole runs, and judge them by what the registry really holds.

`python -m tests.chaos` runs the long form and prints one table; pytest runs a small share of each.
"""
