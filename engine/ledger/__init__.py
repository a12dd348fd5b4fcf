"""The ledger: the lines of every run, durable before anything depends on them, and their fold, the state.

README.md says what each line holds. May import content, the model, errors and lossless JSON; `durable` imports errors
alone, for connectors keep files with it, too.
"""
