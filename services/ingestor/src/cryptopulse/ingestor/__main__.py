"""Runs the ingestor: settings, build, run."""

from cryptopulse.common.runtime import run_service
from cryptopulse.ingestor.bootstrap import build
from cryptopulse.ingestor.settings import Settings

if __name__ == "__main__":
    run_service(Settings, build)
