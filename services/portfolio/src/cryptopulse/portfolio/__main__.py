"""`python -m cryptopulse.portfolio`: the portfolio service."""

from cryptopulse.common.runtime.command import run_service
from cryptopulse.portfolio.bootstrap import build
from cryptopulse.portfolio.settings import PortfolioSettings

if __name__ == "__main__":
    run_service(PortfolioSettings, build)
