"""Portkey's prompt API as source and target, its gateway, and what `check --write-test` tries on it.

May import what every connector may: http, content, the model, errors, log, lossless JSON and task groups.
"""
