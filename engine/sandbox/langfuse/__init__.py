"""Langfuse's side of the sandbox: its prompts API as two generations of the server were measured to behave, on the
shared parts of the sandbox (store, answers, faults, serving). Imports nothing of the engine.
"""
