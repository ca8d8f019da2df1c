"""Keeps credentials out of messages: what a service reports is shown only after `redact`."""

from __future__ import annotations

import os
import re

_VARIABLES = ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "IBMCLOUD_API_KEY")
# API keys and JSON web tokens are longer than any word, host name part or number of a message
_OPAQUE = re.compile(r"[A-Za-z0-9_\-+=.]{32,}")
# of sessions and batches, by which a person finds them
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def redact(text: object) -> str:
    """Return `text` with tokens of the environment and everything that looks like one replaced by `***`.

    >>> redact("401: key abcdefghijklmnopqrstuvwxyz0123456789 is unknown")
    '401: key *** is unknown'
    >>> redact("opened 6f4cb021-4dec-41be-9b41-44afea7b494d session")
    'opened 6f4cb021-4dec-41be-9b41-44afea7b494d session'
    """
    cleaned = str(text)
    for name in _VARIABLES:
        if secret := os.environ.get(name, "").strip():
            cleaned = cleaned.replace(secret, "***")
    return _OPAQUE.sub(lambda found: found[0] if _UUID.fullmatch(found[0]) else "***", cleaned)
