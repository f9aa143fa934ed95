"""The page in a real Chromium: no error, no request, hover, focus, hostile names, phone width, both themes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess

import pytest

from nanhunt.render import render
from nanhunt.results.report import Report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no Chromium with its driver is installed"
)
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER, log_output=subprocess.DEVNULL)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, golden, report, tmp_path):
    """Opens a report from disk; width in pixels, theme "light" or "dark"."""

    def open_page(shown=report, width=1100, theme="light"):
        path = tmp_path / "report.html"
        path.write_text(render(shown, "html"), "utf-8")
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(path.as_uri())
        return browser

    return open_page


def requests(browser):
    """Addresses asked for since the last look."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["request"]["url"] for event in sent]


def test_no_console_error_and_no_request(opened):
    browser = opened()
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert requests(browser) == [browser.current_url]
    assert browser.get_log("browser") == []


def test_the_log_would_show_a_refused_script(opened):
    # The check above can fail: what the policy forbids is seen in the console.
    browser = opened()
    browser.execute_script("document.body.appendChild(new Image()).src = 'http://127.0.0.1:9/x.png'")
    browser.implicitly_wait(1)
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_a_hostile_name_stays_text(opened, golden):
    hostile = "<script>window.owned = 1</script><img src=x onerror='window.owned=1'>\"'\U0001f600" + "n" * 300
    tensor = dataclasses.replace(golden.STEPS[2], tensor=hostile)
    browser = opened(Report(tensors=(tensor, dataclasses.replace(tensor, file="b.npz"))))
    assert browser.execute_script("return window.owned") is None
    assert browser.execute_script("return document.images.length") == 0
    assert hostile in browser.execute_script("return document.querySelector('h2 code').textContent")
    assert requests(browser) == [browser.current_url]


ARTICLES = ".strip[aria-valuemax='3']"
"""The strip of the articles' batch, which is not the worst of the page."""


def test_hover_shows_the_row(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser = opened()
    strip = browser.find_element(By.CSS_SELECTOR, ARTICLES)
    browser.execute_script("arguments[0].closest('details')?.setAttribute('open', '')", strip)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", strip)
    ActionChains(browser).move_to_element(strip).perform()
    detail = browser.execute_script("return arguments[0].nextElementSibling.textContent", strip)
    assert detail.startswith(
        "row 1: 1 exp-overflow (NH101); largest logit 1000; row 1, label 2, loss: naive inf"
    )


def test_the_keyboard_walks_the_rows(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = opened()
    strip = browser.find_element(By.CSS_SELECTOR, ARTICLES)
    browser.execute_script("arguments[0].closest('details')?.setAttribute('open', '')", strip)

    def press(key):
        strip.send_keys(key)
        return strip.get_attribute("aria-valuetext"), strip.get_attribute("aria-valuenow")

    assert press(Keys.HOME) == ("row 0: healthy; largest logit 2", "1")
    assert press(Keys.PAGE_DOWN)[0].startswith("row 1: 1 exp-overflow")
    assert press(Keys.PAGE_DOWN)[1] == "2"
    assert press(Keys.ARROW_RIGHT) == ("row 2: healthy; largest logit 3", "3")
    assert press(Keys.ARROW_RIGHT)[1] == "3"
    assert press(Keys.ARROW_LEFT)[1] == "2"
    assert browser.execute_script("return document.querySelectorAll('.strip .on').length") == 1
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_tab_reaches_every_strip_link_and_table(opened):
    browser = opened()
    reachable = browser.execute_script(
        "return [...document.querySelectorAll('a, summary, [tabindex]')].every(each => each.tabIndex === 0)"
    )
    assert reachable


@pytest.mark.parametrize("width", [320, 390, 800, 1600])
def test_the_page_never_scrolls_sideways(opened, width):
    browser = opened(width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_their_ground(opened, theme):
    # WCAG 2.2 AA: a contrast of 4.5 for text.
    browser = opened(theme=theme)
    ratios = browser.execute_script(_CONTRAST)
    assert ratios
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_the_themes_differ(opened):
    grounds = {
        theme: opened(theme=theme).execute_script("return getComputedStyle(document.body).backgroundColor")
        for theme in ("light", "dark")
    }
    assert len(set(grounds.values())) == 2


def test_printing_opens_what_is_folded(opened):
    browser = opened()
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return [...document.querySelectorAll('details')].every(each => each.open)")


_CONTRAST = """
const light = (color) => {
  const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(Number)
    .map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor;
    if (!/, 0\\)$|transparent/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const ratios = {};
const words = "p, th, td, a, h1, h2, .badge, .loud, .hint, .ok, .useless, .label, dd, dt, b";
for (const element of document.querySelectorAll(words)) {
  if (!element.textContent.trim()) continue;
  const [one, two] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
  const name = `${element.tagName}.${element.className}`;
  ratios[name] = Math.min(ratios[name] ?? 99, (one + 0.05) / (two + 0.05));
}
return ratios;
"""
