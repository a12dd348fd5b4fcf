"""What is done beside a run: checks and counts before it; proof, cut-over and rollback after it.

May import migrate, ledger, content, the model, errors, lossless JSON and task groups; `session` opens both ends for it.
"""
