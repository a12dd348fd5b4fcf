"""The migration file that `promptferry init` writes: short, commented, and ready to run."""

from __future__ import annotations

import json

_START = """\
# A Promptferry migration. From here on:
#   promptferry check FILE    is everything there, and do the keys work? Writes nothing
#   promptferry plan FILE     what would be made of every prompt. Writes nothing
#   promptferry run FILE      does it; the same command again goes on where it stopped
#   promptferry schema        every key there is, for your editor

# Identifies this migration and its ledger: keep it once you have run it.
name: {name}

# Where prompts are read. Keys are never written here: ${{NAME}} comes from the environment;
# {{file: PATH}} and {{command: [PROGRAM, ARGUMENT]}} work too.
source:
{source}

# Where replicas are made{target}

# Which prompts; without any of these, all. More: names, collections, ids, ids_file.
select:
  models: [{models}] # globs, case-sensitive
  version: published # or latest, which may be a draft

# What is changed in the replica; everything else is kept.
rewrite:
  name: "{{name}}-replica" # also {{id}} {{slug}} {{model}} {{collection}}
  model: {model} # one for all, or a map: {{"old-*": new, "*": other}}
{provider}
  parameters: # in this order; dotted paths reach inside
    drop: [] # such as thinking, when the new model does not know it
    rename: {{}} # such as max_tokens: max_completion_tokens
    clamp: {{}} # such as max_completion_tokens: 8192

allow_loss: [] # losses that you accept, by the names `plan` prints; any other fails its prompt
on_existing: fail # a prompt of that name is there and not ours: fail, skip or rename

limits:
  rate: null # most requests a second, everything counted; null: found by itself

ledger: ledgers/{{name}}.jsonl # what was done, beside this file; needed to resume
"""


def starter(
    *,
    name: str = "my-migration",
    base_url: str = "https://api.portkey.ai/v1",
    model: str = "anthropic.claude-3-5-sonnet",
    models: str = "*claude-3-7-*",
    provider: str | None = None,
    target_base_url: str | None = None,
) -> str:
    """The text of a migration file with these values; it loads when the keys that it names are set.

    `provider`: slug of the new provider, None keeps it. `target_base_url`: None means the source's own workspace; any
    address, the source's too, means the workspace of the key in PORTKEY_TARGET_API_KEY.
    """
    to = ": left out, so in the workspace of the source."
    if target_base_url is not None:
        to = ".\ntarget:\n" + _endpoint(target_base_url, "PORTKEY_TARGET_API_KEY")
    kept = "  # provider: new-slug # provider slug (virtual key), when the new model has another vendor"
    return _START.format(
        name=_quoted(name),
        source=_endpoint(base_url, "PORTKEY_API_KEY"),
        target=to,
        models=_quoted(models),
        model=_quoted(model),
        provider=kept if provider is None else f"  provider: {_quoted(provider)} # provider slug (virtual key)",
    )


def _endpoint(base_url: str, key: str) -> str:
    lines = ["  kind: portkey", f"  base_url: {_quoted(base_url)}"]
    if base_url.partition(":")[0] == "sandbox":
        return "\n".join(lines)
    workspace = "  # workspace: my-workspace # id or slug, needed with the key of an organisation"
    return "\n".join([*lines, f"  api_key: ${{{key}}}", workspace])


def _quoted(text: str) -> str:
    # A JSON string is a YAML string, whatever is in it.
    return json.dumps(text, ensure_ascii=False)
