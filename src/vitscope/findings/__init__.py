"""Findings, one file each: rules from a run's numbers to plain sentences."""

from vitscope.findings.checkup import checkup, findings

__all__ = ["checkup", "findings"]
