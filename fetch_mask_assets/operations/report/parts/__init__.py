"""The parts of the privacy report, in the order of the page."""

from fetch_mask_assets.operations.report.part import Part
from fetch_mask_assets.operations.report.parts.audit import AuditSummary
from fetch_mask_assets.operations.report.parts.balance import Balance
from fetch_mask_assets.operations.report.parts.checks import Checks
from fetch_mask_assets.operations.report.parts.erasures import ErasureCertificates
from fetch_mask_assets.operations.report.parts.keys import Keys
from fetch_mask_assets.operations.report.parts.quarantine import Quarantine
from fetch_mask_assets.operations.report.parts.requests import Requests
from fetch_mask_assets.operations.report.parts.retention import Retention

PARTS: tuple[type[Part], ...] = (
    Checks,
    Balance,
    Keys,
    Quarantine,
    ErasureCertificates,
    Retention,
    Requests,
    AuditSummary,
)
