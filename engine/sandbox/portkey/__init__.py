"""The stand-in of Portkey: its prompts, what they refer to, partials, rendering, and a model of one sentence.

May import the shared parts of the sandbox, and nothing else of ours: it must not agree with the engine by sharing code.
"""
