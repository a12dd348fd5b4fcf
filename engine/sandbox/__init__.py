"""A local stand-in of the prompt API of Portkey, on a real socket, with its unverified manners as switches.

`async with serve(SandboxOptions(prompts=20)) as sandbox:` and speak to `sandbox.base_url` with `sandbox.api_key`.
"""

from engine.sandbox.faults import FAULTS
from engine.sandbox.options import Quirks, SandboxOptions
from engine.sandbox.server import Seen
from engine.sandbox.serving import Sandbox, serve

__all__ = ["FAULTS", "Quirks", "Sandbox", "SandboxOptions", "Seen", "serve"]
