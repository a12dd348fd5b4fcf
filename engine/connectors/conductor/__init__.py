"""Orkes Conductor's prompt store as source and target: bulks that are read back, tags, tokens that expire.

May import what every connector may: http, content, the model, errors, log, lossless JSON and task groups.
"""
