"""Promptferry: moves prompts between registries in bulk, each exactly once."""

__version__ = "0.1.0"
