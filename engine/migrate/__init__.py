"""A migration: both ends listed and judged, each prompt read, decided and sent, what is in doubt reconciled.

Knows registries by the protocols and abilities of the model alone. May import ledger, content, the model, errors, log
and task groups: no connector, no configuration, no wire.
"""
