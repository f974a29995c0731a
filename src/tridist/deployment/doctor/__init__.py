"""Looking a machine over: what tridist needs, whether it is there, and what to do about it."""

from tridist.deployment.doctor.checks import CHECKS, Check, CheckSettings
from tridist.deployment.doctor.examination import examine
from tridist.deployment.doctor.report import Finding, Outcome

__all__ = ["CHECKS", "Check", "CheckSettings", "Finding", "Outcome", "examine"]
