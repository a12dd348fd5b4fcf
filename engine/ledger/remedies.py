"""Why prompts did not arrive, what to do about it, and the command to type then. Pure: from the words of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Remedy:
    """`meaning`: what the reason is, in one sentence. `advice`: what to do. `command`: what to type then, with
    MIGRATION for the migration file; empty where nothing is to be typed.
    """

    meaning: str
    advice: str
    command: str = ""


RUN: Final = "promptferry run MIGRATION"
RETRY: Final = f"{RUN} --retry-failed"
_PLAN: Final = "promptferry plan MIGRATION"
_CHECK: Final = "promptferry check MIGRATION"

_UNKNOWN: Final = Remedy("It was not written.", "See the message of each prompt and mend what it names.", RETRY)

_FILE: Final = Remedy("A file of the source is not one prompt as it should be.", "Mend the file that is named.", RETRY)
_NAME: Final = Remedy(
    "The target refuses what it would be called.", "Give it another name by rewrite.name, such as {name|slug}.", _PLAN
)
_SIZE: Final = Remedy(
    "The prompt holds what cannot be written there without loss.",
    "Mend it at the source, or leave it out by select.",
    RETRY,
)
_KEY: Final = Remedy(
    "The key may not do this.", "Give the key the permission that the message names, or use another key.", RETRY
)
_AGAIN: Final = Remedy(
    "The registry, or the way to it, was not well.", "Nothing is to be mended: the same command tries again.", RUN
)
_MEANWHILE: Final = Remedy(
    "It changed while it was being written.", "Nothing is to be mended: the same command looks at it again.", RUN
)

_FAILED: Final = {
    "loss": Remedy(
        "It holds a field that has no place at the target.",
        "Accept the loss by its name in allow_loss, or drop or rename the field in rewrite.parameters.",
        _PLAN,
    ),
    "missing": Remedy(
        "It refers to something that is not there at the target.",
        "Make it there (create_missing can), or lead to something else in rewrite.",
        _CHECK,
    ),
    "untranslatable": Remedy(
        "It says something that the target's templates cannot say.",
        "Say it otherwise at the source, choose rewrite.messages, or copy this prompt by hand.",
        _PLAN,
    ),
    "differs": Remedy(
        "What was read back is not what was written.", "Look at the fields that differ, and at the replica.",
        "promptferry verify MIGRATION",
    ),
    "gone": Remedy("It is not there any more.", "Take it out of select, or restore it at the source.", RUN),
    "rejected": Remedy(
        "The registry refused it as it is.", "Mend what its answer names, in the prompt or in rewrite.", RETRY
    ),
    "key_refused": Remedy("The registry refused the key.", "Give a key that is good.", RUN),
    "quota": Remedy("The registry's quota is spent.", "Raise the quota, or wait until it is renewed.", RUN),
    "dependency": Remedy(
        "It refers to another prompt that was not written.", "Mend that one first, then run it again.", RETRY
    ),
    "disk": Remedy("The disk failed.", "Free or mend that disk.", RUN),
    **dict.fromkeys(("not_a_prompt", "not_readable", "other_shape", "several_prompts", "outside"), _FILE),
    **dict.fromkeys(("bad_name", "bad_label", "bad_provider", "too_long"), _NAME),
    **dict.fromkeys(("not_encodable", "not_kept", "too_deep", "too_large", "resolved"), _SIZE),
    **dict.fromkeys(("forbidden", "no_update_permission", "no_labels", "no_update", "no_history"), _KEY),
    **dict.fromkeys(
        (
            "server_timeout",
            "throttled",
            "unavailable",
            "server_error",
            "not_sent",
            "no_answer",
            "bad_answer",
            "redirected",
            "no_id",
        ),
        _AGAIN,
    ),
    **dict.fromkeys(("newer", "renamed", "moved", "kept", "no_version"), _MEANWHILE),
}  # fmt: skip

_CONFLICTS: Final = {
    "exists": Remedy(
        "Somebody else's prompt has the name.",
        "Rename or remove that one, or choose on_existing: rename or skip.",
        RUN,
    ),
    "name_clash": Remedy(
        "Two prompts would get the same name.", "Tell them apart by rewrite.name, such as {name}-{slug}.", _PLAN
    ),
    "edited": Remedy(
        "The replica was edited by hand, and its source has changed since.",
        "Choose on_edited: keep or overwrite, or undo one of the two edits.",
        RUN,
    ),
    "changed": Remedy("It is not as it was planned.", "Make a new plan and look at it.", _PLAN),
    "renamed": Remedy(
        "Nobody can tell which of several prompts it was.", "Remove or rename the ones that are not meant.", RUN
    ),
}

_SKIPPED: Final = {
    "gone": Remedy("Its source is gone.", "Nothing is to be done: its replica stays."),
    "exists": Remedy("The name is taken, and on_existing says skip.", "Nothing is to be done."),
}

_UNRESOLVED: Final = Remedy(
    "It was sent, or was about to be, and no answer is known.",
    "The next run looks it up before it sends anything again.",
    RUN,
)


def remedy(outcome: str, reason: str) -> Remedy:
    """`outcome`: failed, conflicts, skipped or unresolved, as in `counts`; `reason`: of the line that said so."""
    if outcome == "unresolved":
        return _UNRESOLVED
    return {"conflicts": _CONFLICTS, "skipped": _SKIPPED}.get(outcome, _FAILED).get(reason, _UNKNOWN)
