"""Draws the README's pictures: of the terminal from real runs of the demo, and of a page: `make picture`."""

from __future__ import annotations

import asyncio
import re
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from engine import load_migration, run_migration
from engine.cli.display import live_display
from engine.ledger import report
from engine.run import RunOptions
from engine.web.report import read_report
from engine.web.view import Beside
from tests.real.browser import looked
from tests.web import story

ROOT = Path(__file__).resolve().parent.parent


async def draw(console: Console, folder: Path) -> None:
    """Two runs: the first does it all, the second finds nothing to do."""
    migration = load_migration(ROOT / "configs" / "sandbox.yaml").model_copy(update={"ledger": folder / "demo.jsonl"})
    for _ in range(2):
        console.print("[bold green]$[/] promptferry run configs/sandbox.yaml --yes")
        summary = await run_migration(migration, RunOptions(watch=partial(live_display, console=console)))
        text = report.to_text(summary).replace(str(folder), "configs/ledgers")
        console.print(text, highlight=False)
        console.print()


def main() -> None:
    """Writes .github/terminal.svg and .github/page.png."""
    console = Console(record=True, width=96, force_terminal=True, force_interactive=False)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(draw(console, Path(folder)))
    svg = console.export_svg(title="promptferry")
    drawn = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # a picture loads nothing from elsewhere
    (ROOT / ".github" / "terminal.svg").write_text(drawn, encoding="utf-8")
    draw_page(ROOT / ".github" / "page.png")


def draw_page(file: Path) -> None:
    """The beginning of a page of a run that came to every outcome."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = story.write(Path(folder) / "claude-37-to-35-bedrock.jsonl", story.every_outcome())
        page = Path(folder) / "report.html"
        page.write_bytes(read_report(ledger, Beside(command="migration.yaml"), now=story.START + 4000).html())
        look = {"do": "picture", "url": page.as_uri(), "path": str(file), "width": 1280, "height": 1590}
        looked([look])


if __name__ == "__main__":
    main()
