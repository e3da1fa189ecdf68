"""The Python environment that a model is trained in, as a CycloneDX bill of materials beside the model.

Written by the training script, because only it knows: it may run elsewhere than what asks for it. The same
environment gives the same bytes: no time and no serial number get in.
Source: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/; package URLs, https://github.com/package-url/purl-spec.
"""

from __future__ import annotations

import platform
import re
from importlib.metadata import distributions

import msgspec

NAME = "environment.cdx.json"


def describe() -> bytes:
    """The interpreter and every installed distribution, by name and version."""
    found = {
        (re.sub(r"[-_.]+", "-", dist.metadata["Name"]).lower(), dist.version)
        for dist in distributions()
        if dist.metadata["Name"]
    }
    python = {
        "type": "platform",
        "name": platform.python_implementation(),
        "version": platform.python_version(),
    }
    components = [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        for name, version in sorted(found)
    ]
    return msgspec.json.encode(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": python},
            "components": components,
        }
    )
