"""Prompts in files as source and target: a folder made for review in git, or a `.jsonl` file that keeps everything.

May import what every connector may, and `ledger.durable` besides: nothing here is asked over a wire.
"""
