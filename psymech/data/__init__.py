"""From any table to checked arrays."""

from psymech.data.findings import Finding
from psymech.data.sessions import SessionData

__all__ = ["Finding", "SessionData"]
