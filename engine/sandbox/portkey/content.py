"""What a version of a prompt holds: checked, completed, and shown as the service shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from engine.sandbox.answers import Json, check, invalid
from engine.sandbox.options import Quirks
from engine.sandbox.portkey.template import components
from engine.sandbox.store import Template, Version

Content = dict[str, Json]

KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    "name": str,
    "collection_id": str,
    "string": str,
    "parameters": dict,
    "model": str,
    "virtual_key": str,
    "version_description": str,
    "template_metadata": dict,
    "prompt_metadata": dict,
    "functions": list,
    "tools": list,
    "tool_choice": (dict, str),
    "is_raw_template": int,
    "patch": bool,
}
NEW_VERSION: Final = ("string", "parameters", "model", "functions", "tools", "tool_choice", "is_raw_template")
"""What makes a new version when an update sends it."""

_KNOWN_METADATA: Final = ("template_type", "is_raw_template", "is_raw_parameters")


def check_prompt(body: Mapping[str, Json], required: Sequence[str] = ()) -> None:
    """Refusal (400) when a create or update is not well formed."""
    check(body, KINDS, required)
    if body.get("name") == "":
        raise invalid('"name" must not be empty')
    if body.get("is_raw_template", 0) not in (0, 1):
        raise invalid('"is_raw_template" must be 0 or 1')
    for field in ("functions", "tools"):
        if not all(isinstance(item, dict) for item in body.get(field, ())):
            raise invalid(f'"{field}" must hold objects')


def first_content(body: Mapping[str, Json], provider: str, quirks: Quirks) -> Content:
    """The content of a create; `provider` is the slug of its `virtual_key`. Refusal (400) without any model."""
    content: Content = {
        "string": body["string"],
        "parameters": body["parameters"],
        "model": body.get("model"),
        "virtual_key": provider,
        "functions": body.get("functions"),
        "tools": body.get("tools"),
        "tool_choice": body.get("tool_choice"),
        "is_raw_template": body.get("is_raw_template", 0),
        "template_metadata": body.get("template_metadata", {}),
        "description": body.get("version_description"),
    }
    return settled(content, quirks, model_sent="model" in body, parameters_sent=True)


def next_content(
    base: Content, body: Mapping[str, Json], provider: str | None, metadata: Mapping[str, Json] | None, quirks: Quirks
) -> Content:
    """`base` with what an update sends; `provider` and `metadata` are None when it sends none."""
    changed: Content = {field: body[field] for field in NEW_VERSION if field in body}
    if provider is not None:
        changed["virtual_key"] = provider
    if metadata is not None:
        changed["template_metadata"] = metadata
    if "version_description" in body:
        changed["description"] = body["version_description"]
    return settled(base | changed, quirks, model_sent="model" in body, parameters_sent="parameters" in body)


def settled(content: Content, quirks: Quirks, *, model_sent: bool, parameters_sent: bool) -> Content:
    """With one model in both places, the metadata that survives, and the names in the template.

    When only one of `model` and `parameters` was sent, that one says the model.
    """
    in_parameters = content["parameters"].get("model") if parameters_sent else None
    named = content["model"] if model_sent or in_parameters is None else None
    first, second = (named, in_parameters) if quirks.model_wins == "model" else (in_parameters, named)
    model = first if first is not None else second
    if not isinstance(model, str):
        raise invalid('"model" is required')
    metadata = content["template_metadata"]
    if not quirks.metadata_survives:
        metadata = {key: value for key, value in metadata.items() if key in _KNOWN_METADATA}
    return content | {
        "model": model,
        "parameters": content["parameters"] | {"model": model},
        "template_metadata": metadata,
        "components": components(content["string"]),
    }


def row(template: Template) -> dict[str, Json]:
    """A row of the list of prompts."""
    return _head(template) | {"model": template.model, "object": "prompt"}


def flat(template: Template, version: Version, labels: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """A prompt as it is retrieved."""
    content = version.content
    first = labels[0] if labels else {"id": None, "name": None}
    return _head(template) | {
        "model": content["model"],
        "prompt_version_id": version.id,
        "prompt_version": version.number,
        "prompt_version_description": content["description"],
        "prompt_version_status": "active",
        "string": content["string"],
        "variable_components": content["components"],
        "parameters": content["parameters"],
        "functions": content["functions"],
        "tools": content["tools"],
        "tool_choice": content["tool_choice"],
        "template_metadata": content["template_metadata"],
        "prompt_version_label_id": first["id"],
        "prompt_version_label_name": first["name"],
        "is_raw_template": content["is_raw_template"],
        "prompt_version_labels": [{"id": label["id"], "name": label["name"]} for label in labels],
        "virtual_key": content["virtual_key"],
        "object": "prompt",
    }


def summary(version: Version, labels: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """A row of the list of versions."""
    content = version.content
    return {
        "id": version.id,
        "prompt_id": version.template,
        "prompt_template": {"string": content["string"]},
        "prompt_version": version.number,
        "prompt_description": content["description"],
        "label_id": labels[0]["id"] if labels else None,
        "created_at": version.created_at,
        "status": "active",
        "object": "prompt",
    }


def _head(template: Template) -> dict[str, Json]:
    return {
        "id": template.id,
        "collection_id": template.collection,
        "name": template.name,
        "slug": template.slug,
        "created_at": template.created_at,
        "last_updated_at": template.updated_at,
        "status": template.status,
        "access_level": "all",
        "share_organisation_id": None,
        "shared_at": None,
        "shared_by_user_id": None,
        "shared_from_version_id": None,
        "allow_all_workspaces": 0,
        "forked_from_prompt_id": None,
        "forked_from_prompt_version_id": None,
        "prompt_owning_workspace_id": template.workspace,
    }
