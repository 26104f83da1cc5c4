"""Makes report.png: four parts of the report of the bundled photo through small_spike_driven, as Chromium shows them.

python docs/figures/report_screenshot.py        # needs selenium, chromium and chromedriver
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

SIZE = (1160, 820)  # of the window; each part is drawn at two thirds of it
PARTS = ("spikes", "graph", "blocks", "layers")
LAYER = "encoder_level1.0.residual.0.on"
SORT = "document.querySelector('#layer-table thead th:nth-child(9) button').click()"


def main() -> None:
    """Run, open, look at each part, put them together."""
    from hw_sim.energy import main as energy

    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        image = ROOT / "docs" / "sample" / "rainy.png"
        energy(["--image", str(image), "--checkpoint", "small_spike_driven", "--html", str(page)])
        parts = screenshots(page, Path(folder) / "profile")
    width, height = (side * 2 // 3 for side in SIZE)
    whole = Image.new("RGB", (2 * width + 8, 2 * height + 8), "#888888")
    for number, part in enumerate(parts):
        small = part.resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(small, ((number % 2) * (width + 8), (number // 2) * (height + 8)))
    whole.quantize(128, Image.Quantize.MAXCOVERAGE).save(Path(__file__).with_name("report.png"), optimize=True)


def screenshots(page: Path, profile: Path) -> list[Image.Image]:
    """One picture per part."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--hide-scrollbars"):
        options.add_argument(flag)
    options.binary_location = str(shutil.which("chromium"))
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        browser.execute_script("chooseMap(arguments[0])", LAYER)
        browser.execute_script(SORT)
        pictures = []
        for part in PARTS:
            browser.execute_script("document.getElementById(arguments[0]).scrollIntoView()", part)
            time.sleep(1)
            pictures.append(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))
        return pictures
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
