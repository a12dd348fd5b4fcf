"""The command line: arguments, output, exit codes; no logic.

early      signals until a command looks after them itself
start      what surrounds every command: refused arguments, bugs
common     what every command takes and how it ends
commands   the commands up to a run, and those about its ledger
after      verify, publish, rollback
approve    approve, and whose signatures count
compare    compare
repoint    repoint
run        the flags of `run`, its live display and its summary
fleet      the commands over a fleet, and their display
show       results as text for a person

Heavy modules are imported by the commands that use them, so that `--help` answers at once; and nothing but `early` is
imported before signals are looked after. May import everything; nothing imports it but `__main__`.
"""

from engine.cli import early


def main() -> None:
    """The command `promptferry`."""
    early.take()
    from engine.cli.start import start

    start()
