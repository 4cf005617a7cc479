"""The audit of a build: the suites in `expectations/` on both boundaries of the warehouse.

The only package that imports Great Expectations, which takes seconds: import it where it is used.
"""

from callhouse.quality.audit import AuditReport, Result, audit, audit_published

__all__ = ["AuditReport", "Result", "audit", "audit_published"]
