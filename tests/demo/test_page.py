"""The page in a real browser: what people do with it, on any screen, by any means.

One browser and one server serve all tests: a page that is opened anew knows nothing of
the one before. Pictures are small, so that encoding is not what is waited for.
"""

from __future__ import annotations

import pytest

from browser import PROGRAM, Browser
from demo_server import sharing, start_server, stop_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def server():
    """Run one server with two workers for all tests; its address."""
    server, url = start_server("--workers", "2")
    with sharing(server.pid):
        yield url
    stop_server(server)


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser, sharing(browser.pid):
        yield browser


@pytest.fixture
def page(server, browser):
    """Return the browser, with the page just opened; in the end it has no errors."""
    browser.look(1280, 900)
    browser.console.clear()
    browser.open(f"{server}/")
    browser.until("!!document.querySelector('#saving b')")
    yield browser
    assert browser.console == []


@pytest.fixture
def small(picture, tmp_path):
    """Return the path of a small image file."""
    file = tmp_path / "mine.png"
    file.write_bytes(picture("PNG", size=(300, 200)))
    return str(file)


@pytest.fixture
def page_of_small(page, small):
    """Return the page with the small image in it."""
    take(page, small)
    return page


def take(page, file):
    page.choose_file("#file", file)
    for side in ("before", "after"):
        page.until(
            f"document.getElementById('{side}-about').innerText == '300 \u00d7 200'"
        )


def text(page, selector):
    return page.run(f"document.querySelector({selector!r}).innerText")


def click(page, selector):
    page.run(f"document.querySelector({selector!r}).click()")


def test_an_image_is_sent_changed_and_taken_home(page, small):
    click(page, "input[value=avif]")
    take(page, small)
    page.run(
        "form.w.value = 150, form.w.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.until("document.getElementById('after-about').innerText == '150 \u00d7 100'")
    link = "document.querySelector('#saving a')"
    assert page.run(f"{link}.download") == "mine-small.avif"
    shown = "document.querySelector('#after img').src"
    assert page.run(f"{link}.href == {shown} && {shown}.startsWith('blob:')")
    command = text(page, "#command")
    assert command.startswith("curl --data-binary @mine.png")
    assert "format=avif" in command
    assert "w=150" in command


def test_what_is_no_image_is_explained(page, tmp_path):
    file = tmp_path / "letter.png"
    file.write_text("Dear Sir or Madam")
    page.choose_file("#file", str(file))
    page.until("document.getElementById('note').className == 'bad'")
    assert "This is no known image" in text(page, "#note")


def test_a_flood_is_worked_off_by_all_workers(page_of_small):
    page = page_of_small
    page.run(
        # One look at a time could miss a worker whose images are quick.
        "window.seen = new Set(), new MutationObserver(() => document"
        ".querySelectorAll('#workers .on').forEach((on) => seen.add(on.dataset.worker))"
        ").observe(document.getElementById('workers'),"
        " {attributes: true, childList: true, subtree: true})"
    )
    # Dear enough that each worker is seen at work.
    page.run("form.format.value = 'avif', form.w.value = '', form.enlarge.click()")
    page.run("form.h.value = 900")
    click(page, "#flood")
    page.until("seen.size == 2")
    page.run("form.format.value = 'webp', form.h.value = 9")
    page.until("!document.getElementById('flood').disabled", patience=90)
    assert "encoded" in text(page, "#flooded")


def test_a_killed_worker_is_replaced(page):
    page.until("document.querySelectorAll('#workers li').length == 2")
    workers = (
        "[...document.querySelectorAll('#workers li')].map((i) => i.dataset.worker)"
    )
    before = page.run(workers)
    click(page, "#workers button")
    page.until(f"!{workers}.includes({before[0]!r})")
    page.until("document.getElementById('state').innerText.includes('2 workers')")


def test_it_works_by_keyboard(page):
    page.run("document.getElementById('slide').focus()")
    page.press("ArrowLeft")
    assert page.run("frame.style.getPropertyValue('--cut')") == "49%"
    page.run("document.activeElement.blur()")
    page.until("document.querySelectorAll('#workers li').length == 2")
    reached = set()
    for _ in range(60):
        page.press("Tab")
        element = "document.activeElement"
        reached.add(page.run(f"{element}.id || {element}.name || {element}.innerText"))
    assert {"file", "format", "quality", "w", "fit", "send", "slide"} <= reached
    assert {"measure", "copy", "engine", "flood", "Kill", "Photo"} <= reached


def test_everything_that_can_be_used_has_a_name(page):
    page.until("document.querySelectorAll('#workers li').length == 2")
    page.run("document.querySelector('details').open = true")
    usable = {"button", "textbox", "spinbutton", "slider", "radio", "checkbox", "link"}
    seen = set()
    for node in page.call("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if role in usable and not node.get("ignored"):
            seen.add(role)
            assert node["name"]["value"], node
    assert seen == usable


def test_qualities_can_be_compared_and_all_fits_every_screen(page_of_small):
    page = page_of_small
    page.run("document.querySelector('details').open = true")
    click(page, "#measure")
    page.until("document.querySelectorAll('#curve button').length == 8")
    click(page, "#curve button")
    page.until("document.getElementById('quality-value').innerText == '10'")
    page.until("document.querySelector('#curve [aria-current=true] b') != null")
    for width in (320, 360, 820, 1280, 1600):
        for dark in (False, True):
            page.look(width, 900, dark=dark, phone=width < 500)
            assert page.run("document.documentElement.scrollWidth") <= width
            ground = page.run("getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(18, 17, 25)" if dark else "rgb(244, 243, 247)")


def test_it_works_without_scripts(page, small):
    page.open(page.run("location.href"), scripts=False)
    page.until("document.getElementById('live')?.hidden")  # nothing has woken it
    page.choose_file("#file", small)
    click(page, "#send")
    page.until("document.contentType == 'image/webp'")


def test_encoding_on_the_loop_freezes_it_and_the_chart_shows_it(page):
    # The last test: what it asked for goes on after it.
    late = "document.querySelector('#lag .late').getAttribute('d')"
    page.until("document.querySelector('#lag .lag').getAttribute('d') != ''")
    # Long enough to see on any machine: a large picture without loss.
    page.run("form.lossless.click(), form.w.value = ''")
    click(page, "input[value=inline]")
    click(page, "#flood")
    page.until(f"{late} != ''")
    page.until("document.getElementById('lag-now').className == 'bad'")
