"""report.html in a real browser: headless Chromium and its driver, from the distribution's packages."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support import HOSTILE, LABELS, draw_face, draw_scores

from ferbatch.core.names import encode_path
from ferbatch.core.records import ImageRef
from ferbatch.report import build, pages
from ferbatch.scoring.agreement import Votes
from ferbatch.sources.metadata import Slices

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here (packages chromium and chromium-driver)"
)

ATTACKS = (
    "<script>document.title='ran'</script>",
    '"><img src=x onerror="document.title=\'ran\'">',
    "'><svg onload=document.title='ran'>",
    "</code></style></script><script>document.title='ran'</script>",
    "javascript:document.title='ran'",
    "{{ 7 * 7 }}{% raw %}",
)
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


def hostile_report() -> dict[str, Any]:
    """Two systems with everything a report can hold, and attacks wherever a name comes from outside."""
    n = 300
    rng = np.random.default_rng(0)
    names = [*ATTACKS, *(encode_path(name) for name in HOSTILE)]
    images = [ImageRef(f"test/{names[at % len(names)]}/{at}.jpg", b"") for at in range(n)]
    votes = Votes((*LABELS, ATTACKS[0]), rng.multinomial(10, [0.2] * 5, n).astype(float))
    columns = {ATTACKS[at]: (tuple(names[:6]), rng.integers(0, 6, n)) for at in range(2)}
    systems = [
        build.System(
            name,
            images,
            draw_scores(n, hits=hits),
            votes=votes,
            slices=Slices(columns, ()),
            others={ATTACKS[1]: draw_scores(40, 3)},
        )
        for name, hits in ((ATTACKS[0], 0.4), (ATTACKS[1], 0.6))
    ]
    truth = systems[0].outcomes.truth
    subject = build.Subject(
        ATTACKS[2], LABELS, n, dict(zip(LABELS, np.bincount(truth).tolist(), strict=True)), {ATTACKS[3]: 40}, True
    )
    return build.build(subject, systems, 0.6)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report full of attacks, with a thumbnail for every mistake."""
    folder = tmp_path_factory.mktemp("a report")
    built = hostile_report()
    draw_face(0).save(folder / "face.png")
    face = pages.thumbnail(ImageRef("", os.fsencode(folder / "face.png")))
    shown = {mistake["path"]: str(face) for result in built["results"] for mistake in result["mistakes"]}
    pages.write(built, str(folder / "report"), shown)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


def look(browser: webdriver.Chrome, page: Path, size: str, **media: str) -> None:
    """Open the page at a size, with media features like prefers-color-scheme."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": media.get("scheme", "light")}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media.get("media", ""), "features": features})
    browser.get(page.as_uri())


def test_names_are_text_and_nothing_is_fetched(browser: webdriver.Chrome, page: Path) -> None:
    browser.get_log("browser")
    browser.get_log("performance")
    look(browser, page, "desktop")
    assert browser.title.startswith("How good are the labels?")
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    handlers = (
        "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => /^on/.test(n))"
    )
    assert browser.execute_script(handlers) == []
    links = browser.execute_script("return [...document.links].map(a => a.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)
    text = browser.find_element(By.TAG_NAME, "body").text
    for attack in ATTACKS:
        assert attack in text
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert {url for url in sent if not url.startswith("data:image/png")} == {page.as_uri()}
    policy = browser.find_element(By.CSS_SELECTOR, "meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "default-src 'none'" in str(policy)
    violation = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    browser.execute_script(violation)
    assert browser.execute_script("return window.ran") is None  # even a script that got in would not run


def test_the_labels_sort_by_mouse_and_by_keyboard(browser: webdriver.Chrome, page: Path) -> None:
    look(browser, page, "desktop")
    table = browser.find_element(By.CSS_SELECTOR, "table.labels")

    def column(at: int) -> list[float]:
        cells = table.find_elements(By.CSS_SELECTOR, f"tbody tr > :nth-child({at})")
        return [float(cell.text.split()[0]) for cell in cells]

    def names() -> list[str]:
        return [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "tbody th")]

    assert names() == list(LABELS)
    recall = table.find_element(By.CSS_SELECTOR, "thead th:nth-child(3)")
    recall.find_element(By.TAG_NAME, "button").click()
    assert column(3) == sorted(column(3), reverse=True)
    assert recall.get_attribute("aria-sort") == "descending"
    recall.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(3) == sorted(column(3))
    assert recall.get_attribute("aria-sort") == "ascending"
    table.find_element(By.CSS_SELECTOR, "thead th button").send_keys(Keys.SPACE)
    assert names() == sorted(LABELS)
    assert recall.get_attribute("aria-sort") is None


def test_the_matrix_is_the_reports_and_darkest_where_its_shares_are_largest(
    browser: webdriver.Chrome, page: Path
) -> None:
    look(browser, page, "desktop")
    result = json.loads(page.with_suffix(".json").read_text())["results"][0]
    rows = browser.find_elements(By.CSS_SELECTOR, "#result-1 table.matrix tbody tr")
    assert [row.find_element(By.TAG_NAME, "th").text for row in rows] == list(LABELS)
    for at, (row, counts) in enumerate(zip(rows, result["confusion_matrix"], strict=True)):
        cells = row.find_elements(By.TAG_NAME, "td")
        assert [int(cell.text.split()[0]) for cell in cells] == counts
        assert ["right" in str(cell.get_attribute("class")) for cell in cells] == [to == at for to in range(4)]
        shares = [float(str(cell.get_attribute("style")).split(":")[1].strip(" ;")) for cell in cells]
        assert shares == pytest.approx([n / sum(counts) for n in counts], abs=1e-4)


def test_the_charts_show_the_reports_figures(page: Path) -> None:
    result = json.loads(page.with_suffix(".json").read_text())["results"][0]
    svg = page.with_name("report.confusion-matrix.svg").read_text()
    placed = re.findall(r'transform="translate\(([\d.]+) ([\d.]+)\)"[^>]*>\s*([\d,]+)\s*</text>', svg)
    in_order = [int(n.replace(",", "")) for _, _, n in sorted(placed, key=lambda one: (float(one[1]), float(one[0])))]
    assert in_order == [n for row in result["confusion_matrix"] for n in row]


def test_everything_is_reached_with_the_tab_key(browser: webdriver.Chrome, page: Path) -> None:
    look(browser, page, "phone")
    body = browser.find_element(By.TAG_NAME, "body")
    reached = []
    for _ in range(200):
        body.send_keys(Keys.TAB) if not reached else browser.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        if active.tag_name == "body":
            break
        reached.append(active.tag_name)
    assert reached[0] == "a"  # the link past the header
    scrollable = "return [...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility()).length"
    assert reached.count("div") >= browser.execute_script(scrollable)
    assert {"button", "summary"} <= set(reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_accessible_and_fits(browser: webdriver.Chrome, page: Path, size: str, scheme: str) -> None:
    """The rules of axe-core: names, roles, contrast, headings, landmarks, focusable scrolling."""
    look(browser, page, size, scheme=scheme)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script("const done = arguments[0]; axe.run().then(done, e => done(String(e)))")
    said = [
        (one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in found["violations"]
    ]
    assert said == []
    assert len(found["passes"]) > 20
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) == 0
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 3 * 128) == (scheme == "light")
    if folder := os.environ.get("FERBATCH_SCREENSHOTS"):  # to look at
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        Path(folder, f"{size}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))


def test_it_prints_on_white_with_everything_open(browser: webdriver.Chrome, page: Path) -> None:
    look(browser, page, "desktop", scheme="dark", media="print")
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script("return document.querySelectorAll('details[open]').length") == 0
    paper = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert base64.b64decode(paper["data"]).startswith(b"%PDF")
    if folder := os.environ.get("FERBATCH_SCREENSHOTS"):
        Path(folder, "print.pdf").write_bytes(base64.b64decode(paper["data"]))
