"""The page in a real browser."""

import time
from itertools import pairwise

import pytest
from advising import advice
from chromium import chromium, complaints, requests
from fitting import fitted
from pictured import pictured
from threadpoolctl import threadpool_limits

from pipeline.reporting.options import ReportOptions
from pipeline.reporting.page.report import write_report
from pipeline.store import advice as kept
from pipeline.store.cache import Cache

CLASSES = ("ants", "<img src=x onerror='window.hacked=1'>", "</script><script>hacked=1</script>")
FILES = ('"><img src=x onerror=window.hacked=1>.png', "<script>hacked=1<\n.png", "&lt;\udcff.png")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a page whose classes cannot be told apart, so that every kind of mistake is there."""
    root = tmp_path_factory.mktemp("browser")
    cache = Cache.at(root / "cache")
    with threadpool_limits(1):
        table = pictured(cache, root / "photos", classes=CLASSES, files=FILES, count=90, apart=0.1)
        fitted(table, cache, "lda")
        kept.write(cache, advice(table.table_id, notes=[CLASSES[1]]))
        return write_report(table, None, ReportOptions(), cache).path


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def opened(browser, page):
    """Open the page afresh; at the end nothing was complained of and nothing asked for."""
    requests(browser), complaints(browser)
    browser.get(page.as_uri())
    yield browser
    assert complaints(browser) == []
    assert requests(browser) == []
    assert browser.execute_script("return typeof hacked") == "undefined"


def until(browser, script, *arguments):
    """Wait for a script to return something true, and return it."""
    end = time.monotonic() + 60
    while not (found := browser.execute_script(script, *arguments)):
        assert time.monotonic() < end, script
        time.sleep(0.05)
    return found


def find(browser, selector):
    return browser.find_element("css selector", selector)


def keys(browser, element, *names):
    from selenium.webdriver.common.keys import Keys

    for name in names:
        element.send_keys(getattr(Keys, name, name))


def test_the_page_renders_with_its_pictures_and_the_names_as_they_are(opened):
    assert find(opened, "h1").text == "photos"
    find(opened, "#data h3 + details > summary").click()  # the samples, which are folded
    titles = [one.text for one in opened.find_elements("css selector", "#data h4")]
    assert titles == list(CLASSES)
    find(opened, "#data .thumbs img")
    until(opened, "return document.querySelector('#data .thumbs img').naturalWidth > 0")
    assert opened.execute_script("return document.images.length") > 20
    assert opened.execute_script("return document.querySelectorAll('svg.plot').length") >= 3


def test_the_advice_is_reached_by_its_link_and_drawn(opened):
    find(opened, "nav a[href='#advice']").click()
    assert find(opened, "#advice .note bdi").text == CLASSES[1]
    assert find(opened, "#advice svg.plot").size["height"] > 100
    find(opened, "#advice summary").click()
    assert "forecast" in find(opened, "#advice details table").text


def test_the_policy_stops_what_tries_to_leave(browser, page):
    browser.get(page.as_uri())
    stopped = browser.execute_async_script(
        "const done = arguments[0]; fetch('https://example.invalid/').then(() => done('sent'), "
        "() => done('stopped'))"
    )
    assert stopped == "stopped"
    assert any("Content Security Policy" in said for said in complaints(browser))
    browser.execute_script(
        "document.body.insertAdjacentHTML('beforeend', arguments[0])",
        "<img src=x onerror='window.hacked=1'>",
    )
    time.sleep(0.3)
    assert browser.execute_script("return typeof hacked") == "undefined"
    complaints(browser), requests(browser)


def test_a_number_of_the_matrix_opens_its_pictures_and_closing_gives_the_focus_back(opened):
    cell = find(opened, ".answers:not([hidden]) td.wrong .cell")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    count = int(cell.text)
    cell.click()
    assert find(opened, "#viewer").is_displayed()
    assert len(opened.find_elements("css selector", "#viewer .tile")) == count
    until(opened, "return document.querySelector('#viewer img').naturalWidth > 0")
    assert find(opened, "#viewer-title").text.startswith("Labelled")
    keys(opened, find(opened, "#viewer-close"), "ESCAPE")
    assert not find(opened, "#viewer").is_displayed()
    assert opened.switch_to.active_element == cell


def test_a_table_sorts_both_ways_and_says_so(opened):
    header = find(opened, ".answers:not([hidden]) .by-class th:nth-child(4) button")
    values = (
        "return [...document.querySelectorAll('.answers:not([hidden]) .by-class "
        "td:nth-child(4)')].map(cell => Number(cell.dataset.value))"
    )
    state = "return arguments[0].closest('th').getAttribute('aria-sort')"
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", header)
    header.click()
    down = opened.execute_script(values)
    assert down == sorted(down, reverse=True)
    assert opened.execute_script(state, header) == "descending"
    keys(opened, header, "ENTER")
    assert opened.execute_script(values) == sorted(down)
    assert opened.execute_script(state, header) == "ascending"


def test_one_splits_answers_are_shown_at_a_time(opened):
    shown = (
        "return [...document.querySelectorAll('.answers:not([hidden])')].map(e => e.dataset.split)"
    )
    assert opened.execute_script(shown) == ["test"]
    opened.execute_script("document.querySelector('input[value=val]').click()")
    assert opened.execute_script(shown) == ["val"]


def test_the_map_answers_the_pointer_with_the_picture(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = find(opened, "#map-canvas")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    keys(opened, canvas, "ARROW_RIGHT")  # selects the image in the middle
    until(opened, "return !document.getElementById('map-tip').hidden")
    said = until(opened, "return document.getElementById('map-said').textContent")
    assert any(name in said for name in CLASSES)
    opened.execute_script("document.activeElement.blur()")
    until(opened, "return document.getElementById('map-tip').hidden")
    x, y = opened.execute_script(
        "const [a, b] = report.layouts.at(-1).points, c = document.getElementById('map-canvas');"
        "const s = Math.min(c.clientWidth, c.clientHeight) / 2 - 14;"
        "return [a * s * Math.min(1.6, c.clientWidth / c.clientHeight), -b * s]"
    )
    ActionChains(opened).move_to_element_with_offset(canvas, round(x), round(y)).perform()
    until(opened, "return !document.getElementById('map-tip').hidden")
    until(opened, "return document.querySelector('#map-tip img').naturalWidth > 0")
    assert any(name in find(opened, "#map-tip").text for name in CLASSES)


def test_the_map_is_walked_with_the_keyboard_and_enter_shows_neighbours(opened):
    canvas = find(opened, "#map-canvas")
    keys(opened, canvas, "ARROW_RIGHT")
    heard = "return document.getElementById('map-said').textContent"
    said = [until(opened, heard)]
    for way in ("ARROW_LEFT", "ARROW_LEFT", "ARROW_UP", "ARROW_RIGHT", "ARROW_DOWN"):
        keys(opened, canvas, way)
        said.append(opened.execute_script(heard))
    assert len(set(said)) >= 3
    keys(opened, canvas, "+", "+", "ENTER")
    assert len(opened.find_elements("css selector", "#viewer .tile")) == 24
    keys(opened, find(opened, "#viewer-close"), "ENTER")


def test_the_map_is_filtered_by_class_and_coloured_by_error(opened):
    from selenium.webdriver.support.select import Select

    legend = "return [...document.querySelectorAll('#map-legend li')].map(line => line.textContent)"
    assert [line.rsplit(" ", 1) for line in opened.execute_script(legend)] == [
        [name, "30"] for name in CLASSES
    ]
    Select(find(opened, "#map-class")).select_by_index(2)
    assert opened.execute_script(legend) == [f"{CLASSES[1]} 30"]
    Select(find(opened, "#map-colour")).select_by_value("error")
    lines = opened.execute_script(legend)
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        "right", "wrong", "not predicted (learned from)",
    ]  # fmt: skip
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == 30
    drawn = "document.getElementById('map-canvas').toDataURL()"
    before = opened.execute_script(f"return {drawn}")
    Select(find(opened, "#map-layout")).select_by_index(0)
    until(
        opened, "return document.getElementById('map-canvas').toDataURL() !== arguments[0]", before
    )
    assert "directions" in find(opened, "#map-note").text


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_is_never_wider_than_the_screen(opened, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def contrast(one, other):
    """Return the ratio of two colours' luminance (WCAG 2.2, 1.4.3 and 1.4.11)."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_points_stand_out_in_both_schemes(opened, scheme):
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    colour = (
        "const e = document.createElement('i'); e.style.color = `var(${arguments[0]})`;"
        "document.body.append(e); const c = getComputedStyle(e).color; e.remove(); return c"
    )
    paper = opened.execute_script(colour, "--paper")
    assert (contrast(paper, "rgb(0, 0, 0)") > 10) == (scheme == "light")
    texts = ("--ink", "--quiet", "--accent", "--good", "--bad")
    marks = (*(f"--series-{n}" for n in range(1, 7)), *(f"--class-{n}" for n in range(10)))
    for names, least in ((texts, 4.5), (marks, 3.0)):
        for name in names:
            found = contrast(paper, opened.execute_script(colour, name))
            assert found >= least, (name, round(found, 2))
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_everything_that_can_be_pressed_or_chosen_has_a_name(opened):
    nameless = opened.execute_script(
        "return [...document.querySelectorAll("
        "'button, select, input, canvas, [role=region], svg.plot')]"
        ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length"
        " || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML.slice(0, 80))"
    )
    assert nameless == []
    assert opened.execute_script(
        "return [...document.querySelectorAll('table')].every(t => t.caption)"
    )
    levels = opened.execute_script(
        "return [...document.querySelectorAll('main h2, main h3, main h4')]"
        ".map(heading => Number(heading.tagName[1]))"
    )
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert opened.execute_script("return [...document.images].every(image => image.alt)")
