"""The docs site as a browser shows it: complete, from its own host, at every width, and with a search."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import Page
from tests.docs.test_site import ROOT, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PAGES = ("index", "derain", "energy", "api", "faq", "glossary", "checkpoints/small_released")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("look", [(1280, False), (1280, True), (400, False)])
def test_no_page_complains_asks_another_host_or_is_wider_than_the_screen(browser, address, look):
    for name in PAGES:
        page = Page(browser, f"{address}{name}.html", *look)
        assert page.complaints() == [], name
        assert [url for url in page.requests() if not url.startswith((address, "blob:"))] == [], name
        assert page.js("return document.documentElement.scrollWidth <= window.innerWidth"), name
        assert page.js("return [...document.images].every((image) => image.complete && image.naturalWidth)"), name


def test_a_word_is_found(browser, address):
    page = Page(browser, f"{address}index.html")
    browser.find_element("css selector", ".md-search__input").send_keys("near-tie")
    links = "return [...document.querySelectorAll('.md-search-result__link')].map((link) => link.href)"
    found = WebDriverWait(browser, 60).until(lambda _: page.js(links))
    assert any("exactness.html" in link or "glossary.html" in link for link in found)
