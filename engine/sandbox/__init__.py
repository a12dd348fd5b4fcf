"""A local stand-in of the prompt APIs of Portkey and Orkes Conductor, on a real socket, with their unverified manners
as switches.

`async with serve(SandboxOptions(prompts=20)) as sandbox:` and speak to `sandbox.base_url` (Portkey) with
`sandbox.api_key`, or to `sandbox.conductor_url` with any key id and `sandbox.api_key` as the secret. Imports nothing of
ours, and nothing of ours imports it but `connect` and the command line, when it is asked for: it is an extra.
"""

from engine.sandbox.faults import FAULTS
from engine.sandbox.options import ConductorQuirks, Quirks, SandboxOptions
from engine.sandbox.server import Seen
from engine.sandbox.serving import Sandbox, serve

__all__ = ["FAULTS", "ConductorQuirks", "Quirks", "Sandbox", "SandboxOptions", "Seen", "serve"]
