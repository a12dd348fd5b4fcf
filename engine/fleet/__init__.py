"""Many migrations in one go: each by the verbs of a single one, with one gate for each host and key, one sandbox and
one way to end. May import all that a single migration is run with, and is imported by the command line alone.
"""
