"""Run the indicators service: `python -m cryptopulse.indicators [migrate|check|healthcheck]`."""

from cryptopulse.common.runtime.command import run_service
from cryptopulse.indicators.bootstrap import build
from cryptopulse.indicators.settings import Settings

if __name__ == "__main__":
    run_service(Settings, build)
