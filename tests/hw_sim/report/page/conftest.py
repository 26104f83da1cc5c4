from __future__ import annotations

import pytest

from tests.hw_sim.report.page.browser import opened_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium with a new profile; the test is skipped where there is none."""
    with opened_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver
