"""The page in a real browser: what people do with it, on any screen, by any means."""

from __future__ import annotations

import pytest

from browser import PROGRAM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here"),
]


@pytest.fixture
def page(own_server):
    """Return a browser that looks at a server of two workers; it has no errors."""
    start, _ = own_server
    url = start("--workers", "2")
    with Browser() as browser:
        browser.look(1280, 900)
        browser.open(f"{url}/")
        browser.until("!!document.querySelector('#saving b')")
        yield browser
        assert browser.console == []


def text(page, selector):
    return page.run(f"document.querySelector({selector!r}).innerText")


def click(page, selector):
    page.run(f"document.querySelector({selector!r}).click()")


def test_an_image_is_sent_changed_and_taken_home(page, picture, tmp_path):
    file = tmp_path / "mine.png"
    file.write_bytes(picture("PNG", size=(300, 200)))
    click(page, "input[value=avif]")
    page.choose_file("#file", str(file))
    page.until("document.getElementById('before-about').innerText == '300 \u00d7 200'")
    page.until("document.getElementById('after-about').innerText == '300 \u00d7 200'")
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


def test_the_qualities_can_be_compared(page):
    click(page, "#measure")
    page.until("document.querySelectorAll('#curve button').length == 8")
    click(page, "#curve button")
    page.until("document.getElementById('quality-value').innerText == '10'")
    page.until("document.querySelector('#curve [aria-current=true] b') != null")


def test_encoding_on_the_loop_freezes_it_and_the_chart_shows_it(page):
    late = "document.querySelector('#lag .late').getAttribute('d')"
    page.until("document.querySelector('#lag .lag').getAttribute('d') != ''")
    # Long enough to see on any machine: a large picture without loss.
    page.run("form.lossless.click(), form.w.value = ''")
    click(page, "input[value=inline]")
    click(page, "#flood")
    page.until(f"{late} != ''")
    page.until("document.getElementById('lag-now').className == 'bad'")


def test_a_flood_is_worked_off_by_all_workers(page):
    click(page, "#flood")
    page.until("document.querySelectorAll('#workers .on').length == 2")
    page.until("!document.getElementById('flood').disabled", patience=90)
    assert "encoded" in text(page, "#flooded")


def test_a_killed_worker_is_replaced(page):
    before = page.until("document.querySelectorAll('#workers li').length == 2")
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


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1600])
def test_it_fits_every_screen(page, width, dark):
    page.look(width, 900, dark=dark, phone=width < 500)
    page.run("document.querySelector('details').open = true")
    click(page, "#measure")
    page.until("document.querySelectorAll('#curve button').length == 8")
    assert page.run("document.documentElement.scrollWidth") <= width
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 17, 25)" if dark else "rgb(244, 243, 247)")


def test_it_works_without_scripts(page, picture, tmp_path):
    file = tmp_path / "mine.png"
    file.write_bytes(picture("PNG"))
    page.open(page.run("location.href"), scripts=False)
    page.until("document.getElementById('live')?.hidden")  # nothing has woken it
    page.choose_file("#file", str(file))
    click(page, "#send")
    page.until("document.contentType == 'image/webp'")
