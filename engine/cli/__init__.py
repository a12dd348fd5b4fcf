"""The command line: arguments, output, exit codes; no logic.

early      signals until a command looks after them itself
start      what surrounds every command: refused arguments, bugs
common     what every command takes and how it ends
commands   the commands up to a run, and those about its ledger; ask, starter: the questions and the file of `init`
after      verify, publish, rollback
approve    approve, and whose signatures count
compare    compare
repoint    repoint
report     report, and what a page has that is in no ledger
watch      watch
serve      sandbox
run        the flags of `run` and its summary; machines: those that do a part of it
metrics    what a run leaves for Prometheus; step_summary: and for a page of GitHub
telemetry  traces and metrics, where they are asked for; otel: how, with the extra
fleet      the commands over a fleet; fleet_display: their display
display    the live display of a run; panel, figures: what is on it
follow     `status --follow`
show       results as text for a person

Heavy modules are imported by the commands that use them, so that `--help` answers at once; and nothing but `early` is
imported before signals are looked after. May import everything; nothing imports it but `__main__`.
"""

from engine.cli import early


def main() -> None:
    """The command `promptferry`."""
    early.open_streams()
    early.take()
    from engine.cli.start import start

    start()
