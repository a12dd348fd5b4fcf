"""What was read of the source before its turn came: handed on once, so that nobody reads it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.model import Prompt, Version

MOST_CHARACTERS: Final = 32 * 2**20
"""Of templates; what does not fit in is read again when its turn comes."""


class Readings:
    """Definitions and histories by id of their prompt. They are as old as the listing that they were read for."""

    def __init__(self, most: int = MOST_CHARACTERS) -> None:
        self._room = most
        self._prompts: dict[tuple[str, str], Prompt] = {}
        self._versions: dict[str, Sequence[Version]] = {}

    def keep(self, prompt: Prompt, version: str) -> None:
        """`version`: as it was asked for."""
        if len(prompt.text) <= self._room and (prompt.id, version) not in self._prompts:
            self._room -= len(prompt.text)
            self._prompts[prompt.id, version] = prompt

    def look(self, prompt_id: str, version: str) -> Prompt | None:
        """The definition, which stays here."""
        return self._prompts.get((prompt_id, version))

    def take(self, prompt_id: str, version: str) -> Prompt | None:
        """The definition, which is forgotten here."""
        prompt = self._prompts.pop((prompt_id, version), None)
        if prompt is not None:
            self._room += len(prompt.text)
        return prompt

    def keep_versions(self, prompt_id: str, versions: Sequence[Version]) -> None:
        """The history of a prompt whose turn has come."""
        self._versions[prompt_id] = versions

    def take_versions(self, prompt_id: str) -> Sequence[Version] | None:
        """The history, which is forgotten here."""
        return self._versions.pop(prompt_id, None)
