"""Findings, one per file: rules that turn a run's numbers into plain sentences."""

from vitscope.findings.checkup import checkup, findings

__all__ = ["checkup", "findings"]
