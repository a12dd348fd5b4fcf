"""Arize Phoenix's prompts as source and target: chats alone, in versions that nobody can take back, found by name.

May import what every connector may: http, content, the model, errors, log, lossless JSON and task groups.
"""
