"""Runs the ingestor: settings, build, run; and what operators ask of it."""

from cryptopulse.common.runtime import run_service
from cryptopulse.ingestor.bootstrap import build
from cryptopulse.ingestor.entrypoints.operator import TOOLS
from cryptopulse.ingestor.settings import Settings

if __name__ == "__main__":
    run_service(Settings, build, tools=TOOLS)
