"""Langfuse's prompts as source and target: versions that only labels tell apart, and a config that holds all the rest.

May import what every connector may: http, content, the model, errors, log, lossless JSON and task groups.
"""
