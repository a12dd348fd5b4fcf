"""`compare`: the answers of the originals, kept in a file, and beside them those of their replicas to the same cases.

May import what every verb may: migrate, ledger, content, the model, errors, lossless JSON and task groups.
"""
