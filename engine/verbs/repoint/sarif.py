"""What was found as SARIF 2.1.0, for code scanning. Pure.

Sources: OASIS, Static Analysis Results Interchange Format 2.1.0; GitHub, "SARIF support for code scanning".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from engine.verbs.repoint.rewriting import Found

MOST: Final = 25_000
"""Results in one run that GitHub takes."""
_RULES: Final = {
    "id": "An id of a prompt that was migrated",
    "slug": "A slug of a prompt that was migrated",
    "name": "A name of a prompt that was migrated",
}
_HELP: Final = "`promptferry repoint --write` puts the new one in its place."


def sarif(left: Sequence[Found], *, root: str, version: str) -> dict[str, Any]:
    """The log: one run, an error for each that is left; its paths are those below the folder `root`, where they are.

    `version`: of the program.
    """
    driver = {
        "name": "promptferry",
        "semanticVersion": version,
        "rules": [
            {
                "id": f"old-{kind}",
                "shortDescription": {"text": text},
                "fullDescription": {"text": f"{text}; its replica has another one."},
                "help": {"text": _HELP},
                "defaultConfiguration": {"level": "error"},
            }
            for kind, text in _RULES.items()
        ],
    }
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, root) for one in left],
            }
        ],
    }


def _result(one: Found, root: str) -> dict[str, Any]:
    location: dict[str, Any] = {"uri": _uri(one.file, root)}
    region = {"startLine": one.line, "startColumn": one.column, "endColumn": one.column + len(one.old)}
    fix = {
        "description": {"text": f"Put {one.new!r} in its place"},
        "artifactChanges": [
            {
                "artifactLocation": location,
                "replacements": [{"deletedRegion": region, "insertedContent": {"text": one.new}}],
            }
        ],
    }
    return {
        "ruleId": f"old-{one.kind}",
        "ruleIndex": [*_RULES].index(one.kind),
        "level": "error",
        "message": {"text": f"{one.old!r} is the old {one.kind} of a prompt: now {' or '.join(map(repr, one.news))}"},
        "locations": [{"physicalLocation": {"artifactLocation": location, "region": region}}],
        **({"fixes": [fix]} if one.new is not None else {}),
    }


def _uri(file: str, root: str) -> str:
    path = os.path.normpath(file).removeprefix(os.path.join(root, ""))
    written = quote(os.fsencode(path))
    return f"file://{written}" if os.path.isabs(path) else written
