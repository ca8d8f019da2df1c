"""Keeps credentials out of messages: what a service reports is shown only after `redact`."""

from __future__ import annotations

import os
import re

_VARIABLES = ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "IBMCLOUD_API_KEY")
# API keys and JSON web tokens are longer than any word, host name part or number of a message
_OPAQUE = re.compile(r"[A-Za-z0-9_\-+=.]{32,}")


def redact(text: object) -> str:
    """Return `text` with tokens of the environment and everything that looks like one replaced by `***`.

    >>> redact("401: key abcdefghijklmnopqrstuvwxyz0123456789 is unknown")
    '401: key *** is unknown'
    """
    cleaned = str(text)
    for name in _VARIABLES:
        if secret := os.environ.get(name, "").strip():
            cleaned = cleaned.replace(secret, "***")
    return _OPAQUE.sub("***", cleaned)
