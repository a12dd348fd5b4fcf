"""A local stand-in of the prompt APIs of Portkey, Orkes Conductor and Langfuse, on a real socket, with their unverified
manners as switches.

`async with serve(SandboxOptions(prompts=20)) as sandbox:` and speak to `sandbox.base_url` (Portkey) with
`sandbox.api_key`, to `sandbox.conductor_url` with any key id and `sandbox.api_key` as the secret, or to
`sandbox.langfuse_url` with `sandbox.langfuse_public_key` and `sandbox.langfuse_secret_key`. Imports nothing of
ours, and nothing of ours imports it but `connect` and the command line, when it is asked for: it is an extra.
"""

from engine.sandbox.faults import FAULTS
from engine.sandbox.langfuse.quirks import LangfuseQuirks
from engine.sandbox.options import ConductorQuirks, Quirks, SandboxOptions
from engine.sandbox.server import Seen
from engine.sandbox.serving import Sandbox, serve

__all__ = ["FAULTS", "ConductorQuirks", "LangfuseQuirks", "Quirks", "Sandbox", "SandboxOptions", "Seen", "serve"]
