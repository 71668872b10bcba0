"""The report in a real browser: what it shows, how it sorts and filters, and what it asks for."""

from __future__ import annotations

import pytest
from browser import chromium, missing
from http_site import serve
from report_records import HOSTILE, draw_set, draw_two, report, stored
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "there is a browser"),
]
ENTER = "\ue007"
TABLE = "#table-1 > .scroll .sortable"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser that shows the report of two tasks, with one method of a hostile name."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        stored(root, "lora", seed, 0.05)
        stored(root, "vpt", seed)
        method = {"name": "decoder_only", "title": HOSTILE.replace("\ud800", "")}
        stored(root, "decoder_only", seed, 0.1, method=method)
    stored(root, "lora", 0, test="kvasir", task="polyp")
    place = tmp_path_factory.mktemp("report")
    done = CliRunner().invoke(app, ["report", str(root), "-o", str(place), "--no-images", "-q"])
    assert done.exit_code == 0, done.output
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        browser.open(place / "index.html")
        yield browser


def column(page, number: int) -> list[str]:
    """The texts of a column of the first table, from top to bottom, of rows that are seen."""
    return page.run(
        f"[...document.querySelectorAll('{TABLE} tbody tr')].filter(r => r.offsetHeight)"
        f".map(r => r.cells[{number}].textContent)"
    )


def header(page, text: str) -> int:
    texts = page.run(f"[...document.querySelectorAll('{TABLE} th button')].map(b => b.textContent)")
    return next(place for place, found in enumerate(texts) if found.startswith(text))


def test_every_section_and_every_record_is_there(page):
    sections = page.run("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert sections == [
        *("About", "cod · CAMO", "polyp · kvasir", "Training curves", "All records")
    ]
    parts = page.run("[...document.querySelectorAll('#table-1 h3')].map(h => h.textContent)")
    assert parts == [
        "Who is better, and how sure",
        "Differences of every pair",
        "Score against cost",
        "Score against the size of the object",
        "Images that methods disagree on most",
    ]
    assert page.run("document.querySelectorAll('#records tbody tr').length") == 10
    assert page.run("document.querySelectorAll('#table-1 svg .mark').length") >= 6
    assert page.run("document.querySelectorAll('#table-1 .matrix td').length") == 9
    assert page.run("document.querySelectorAll('#training svg').length") == 8
    heights = page.run("[...document.querySelectorAll('svg')].map(s => s.clientHeight)")
    assert min(heights) > 50
    used = page.run("[...document.querySelectorAll('use')].every(u => u.getBBox().width > 1)")
    assert used
    links = page.run("[...document.links].every(a => document.querySelector(a.hash))")
    assert links


def test_nothing_is_asked_for_but_the_page_and_nothing_hostile_ran(page):
    asked = [url for url in page.requests() if not url.startswith("data:")]
    assert len(asked) == 1
    assert asked[0].startswith("file://")
    assert page.messages() == []
    assert page.run("document.images.length") == 0
    assert page.run("document.scripts.length") == 1
    shown = page.run(f"document.querySelector('{TABLE} tbody').textContent")
    assert "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>\\u202e мета 方法" in shown


TRY_EVERYTHING = """(url => {
  window.stopped = [];
  document.addEventListener("securitypolicyviolation", e => stopped.push(e.effectiveDirective));
  const image = new Image();
  image.src = url + "image.png";
  const script = document.createElement("script");
  script.textContent = "window.ran = true";
  const other = document.createElement("script");
  other.src = url + "script.js";
  const frame = document.createElement("iframe");
  frame.src = url + "frame.html";
  document.body.append(image, script, other, frame);
  fetch(url + "data").catch(() => 0);
  return new Promise(done => setTimeout(() => {
    for (const element of [image, script, other, frame]) element.remove();
    done(stopped);
  }, 500));
})("%s")"""


def test_the_policy_stops_whatever_would_load_or_run(page):
    with serve() as site:
        stopped = page.run(TRY_EVERYTHING % f"{site.url}/")
    assert {"img-src", "script-src-elem", "frame-src", "connect-src"} <= set(stopped)
    assert page.run("window.ran === undefined")
    assert site.asked == []
    page.requests()  # the attempts are written there
    page.messages()


def test_headers_sort_numbers_as_numbers_both_ways(page):
    place = header(page, "Method (M)")
    click = f"{TABLE} th:nth-child({place + 1}) button"
    page.click(click)
    assert [float(text) for text in column(page, place)] == [0.0, 0.055, 0.147]
    assert page.run(f"document.querySelector('{click}').parentElement.ariaSort") == "ascending"
    page.press(click, ENTER)  # by the keyboard
    assert [float(text) for text in column(page, place)] == [0.147, 0.055, 0.0]
    score = header(page, "S ")
    page.click(f"{TABLE} th:nth-child({score + 1}) button")  # the best first
    values = [float(text.split()[0]) for text in column(page, score)]
    assert values == sorted(values, reverse=True)
    sorts = page.run(
        f"[...document.querySelectorAll('{TABLE} th[aria-sort]')].map(h => h.ariaSort)"
    )
    assert sorts.count("none") == len(sorts) - 1


def test_equal_values_keep_their_order(page):
    page.click(f"{TABLE} th:nth-child(1) button")
    names = column(page, 0)
    page.click(f"{TABLE} th:nth-child({header(page, 'n') + 1}) button")
    assert column(page, 0) == names


def test_all_columns_on_demand(page):
    seen = "[...document.querySelectorAll('#table-1 thead th')].filter(h => h.offsetWidth).length"
    before = page.run(seen)
    page.click("#columns")
    assert page.run(seen) > before
    page.click("#columns")
    assert page.run(seen) == before


def test_filters_by_name_task_and_test_set(page):
    clear = "(find => { find.value = ''; find.dispatchEvent(new Event('input')); })(%s)"
    page.type("#find", "LORA")
    assert column(page, 0) == ["LoRA"]
    assert page.run("document.getElementById('count').textContent") == "4 of 10 records"
    assert page.run("document.querySelectorAll('#table-1 .mark.dim').length") > 0
    page.type("#find", "x")
    assert column(page, 0) == ["no row has this name"]
    page.run(clear % "document.getElementById('find')")
    assert len(column(page, 0)) == 3
    page.click("#task option[value=polyp]")
    assert page.run("document.getElementById('table-1').offsetHeight") == 0
    assert page.run("document.getElementById('table-2').offsetHeight") > 0
    assert page.run("document.getElementById('count').textContent") == "1 of 10 records"
    page.click("#task option[value='']")
    page.click("#test option[value=CAMO]")
    assert page.run("document.getElementById('table-2').offsetHeight") == 0
    page.click("#test option[value='']")
    assert page.run("document.getElementById('count').textContent") == "10 records"


def test_it_fits_a_telephone(page):
    # What is wider than the screen scrolls in its own place, never the page.
    page.run("(document.body.style.width = '360px', 1)")
    assert page.run("document.body.scrollWidth") <= 380
    page.run("(document.body.style.width = '', 1)")


def test_pictures_are_seen_and_stand_in_the_page_itself(tmp_path):
    own, split = draw_set(tmp_path)
    draw_two(tmp_path / "runs", split.digest)
    place = ["--data-root", str(tmp_path / "data"), "--datasets", str(own)]
    report(tmp_path / "runs", tmp_path / "report", *place, "--count", "3")
    (tmp_path / "browser").mkdir()
    with chromium(tmp_path / "browser") as browser:
        browser.open(tmp_path / "report" / "index.html")
        seen = browser.run(
            "[...document.images].map(i => i.offsetParent && i.complete && i.naturalWidth)"
        )
        assert seen == [32] * 3 * (2 + 2 * 2)  # image and mask, map and errors of two methods
        assert all(url.startswith(("data:", "file:")) for url in browser.requests())
        assert browser.messages() == []
        browser.run("(document.body.style.width = '700px', 1)")
        lines = browser.run(
            "new Set([...document.querySelector('.cells').children].map(c => c.offsetTop)).size"
        )
        assert lines == 1  # image, mask and two methods stand side by side
