"""Rules over an adapter and a base: findings with stable ids, and what could not be checked."""

from rankloom.validate.policy import Policy
from rankloom.validate.report import Report
from rankloom.validate.rule import Rule
from rankloom.validate.rules import RULES
from rankloom.validate.run import validate

__all__ = ["RULES", "Policy", "Report", "Rule", "validate"]
