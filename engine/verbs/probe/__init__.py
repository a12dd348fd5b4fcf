"""`check --probe`: which calls the prompts come to, what the models of the target say of them, and what mends it.

`shapes` and `mending` are pure, `trying` makes the calls. May import what verbs may.
"""
