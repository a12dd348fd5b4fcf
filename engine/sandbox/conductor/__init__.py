"""The stand-in of Orkes Conductor: prompts in bulk, versions, tags, integrations, and tokens that expire.

May import the shared parts of the sandbox, and nothing else of ours: it must not agree with the engine by sharing code.
"""
