"""The life of a service process: start, health, supervised loops, drain, exit code."""

from cryptopulse.common.runtime.command import main, run_service
from cryptopulse.common.runtime.service import Runtime
from cryptopulse.common.telemetry.checks import Check

__all__ = ["Check", "Runtime", "main", "run_service"]
