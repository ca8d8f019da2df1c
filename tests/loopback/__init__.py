"""A loopback IBM Quantum service.

(documentation follows)
"""

from __future__ import annotations

from .client import LoopbackService, loopback_process
from .control import Controls, RemoteControl
from .faults import JOB_KINDS, OPERATIONS, REQUEST_KINDS, RESULT_KINDS
from .records import JobRecord, SessionRecord, Settings
from .service import API_KEY, INSTANCE

__all__ = [
    "API_KEY",
    "INSTANCE",
    "JOB_KINDS",
    "OPERATIONS",
    "REQUEST_KINDS",
    "RESULT_KINDS",
    "Controls",
    "JobRecord",
    "LoopbackService",
    "RemoteControl",
    "SessionRecord",
    "Settings",
    "loopback_process",
]
