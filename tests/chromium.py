"""A headless Chromium that tells of every console message and network request."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--window-size=1200,900",
    "--force-prefers-reduced-motion",  # nothing scrolls away under a click
)


@contextmanager
def chromium() -> Iterator:
    """Yield a selenium driver; skip with a reason where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with its driver; scripts/test installs them where it can")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver)  # named, so that selenium looks for none
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.set_script_timeout(120)
        yield browser


def requests(browser) -> list[str]:
    """Return the addresses that were asked for since the last call, besides the page and data."""
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    found = [
        message["params"]["request"]["url"]
        for message in sent
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [
        url
        for url in found
        if not url.startswith("data:") and url != browser.current_url.split("#")[0]
    ]


def complaints(browser) -> list[str]:
    """Return what the console said since the last call."""
    return [entry["message"] for entry in browser.get_log("browser")]
