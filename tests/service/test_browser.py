"""The pages in a real browser: one server, one Chromium, and nothing that leaves this machine."""

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import uvicorn

from gallery_rows import some_rows
from service.conftest import PASSWORD, a_picture, row_with_crop
from tapetum.data.image_io import decode_picture
from tapetum.evaluation.calibration import Calibration, PairCalibration
from tapetum.evaluation.thresholds import Tail
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import ModelInfo
from tapetum.inference.sessions import Model
from tapetum.service.app import create_app
from tapetum.service.searches import Searches
from tapetum.service.state import Service, ServiceOptions, build_service
from tapetum.service.users import Role

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright; install it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium"),
]

ROWS = 12
HEIGHT = "shown => shown.decode().then(() => shown.naturalHeight)"  # of a picture, once it is there
PHONE = {"width": 360, "height": 740}
EVERY_PAGE = ("/", "/?row=row00001", "/browse?camera=c1", "/sightings/row00003", "/footage", "/audit", "/nothing")

# What a person who sees little, or uses no mouse, would stumble over.
PROBE = """() => {
  const found = [];
  for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
    if (!field.labels?.length && !field.ariaLabel) found.push('no label: ' + field.outerHTML);
  for (const picture of document.images) if (!picture.alt) found.push('no alt: ' + picture.outerHTML);
  for (const control of document.querySelectorAll('a, button, summary'))
    if (!control.innerText.trim() && !control.ariaLabel && !control.querySelector('img[alt]'))
      found.push('no name: ' + control.outerHTML);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const line = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const linear = [r, g, b].map((value) => line(value / 255));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.75) return colour;
    }
    return [255, 255, 255];
  };
  let least = 99;
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const element = words.currentNode.parentElement;
    const said = words.currentNode.data.trim();
    if (!said || !element.checkVisibility() || element.closest('.unseen, svg, option')) continue;
    const style = getComputedStyle(element);
    const pair = [light(numbers(style.color)), light(ground(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    least = Math.min(least, contrast);
    if (contrast < (large ? 3 : 4.5)) found.push(`contrast ${contrast.toFixed(2)}: ${said}`);
  }
  return {found, least};
}"""

# How many of the first controls Tab should stop at, and where it is.
STOPS = """() => {
  const all = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]';
  const reached = (one) => one.checkVisibility() && !one.disabled && (one.type !== 'radio' || one.checked);
  return [...document.querySelectorAll(all)].filter(reached).slice(0, 25).length;
}"""
FOCUSED = """() => {
  const now = document.activeElement;
  const ring = getComputedStyle(now.closest('.chip, .toggle') ?? now).outlineStyle;
  return {text: now.innerText, ring, place: [...document.all].indexOf(now)};
}"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[Service]:
    """A calibrated gallery whose crops the model has really seen, and two people who may use it."""
    folder = tmp_path_factory.mktemp("browser") / "night"
    footage = folder.parent / "recorder"
    footage.mkdir()
    for number in range(4):
        (footage / f"gate_{number}.jpg").write_bytes(a_picture(90 + number, (128, 64)))
    tail = Tail((0.001, 0.02, 1.0), (0.9, 0.9, -1.0))
    pairs = ("visible-visible", "visible-infrared", "infrared-infrared")
    fitted = PairCalibration((0.1, 0.95), (0.05, 0.97), tail, {100: tail}, {"people": 40})
    calibration = Calibration({}, {}, "test", 0, 0.5, "isotonic", (0.01,), dict.fromkeys(pairs, fitted))
    with open_gallery(folder, create=ModelInfo(model.id, model.dimension)) as store:
        rows = [row_with_crop(folder, row, model, number) for number, row in enumerate(some_rows(ROWS))]
        pictures = [decode_picture(a_picture(number), Path(f"{number}.jpg")) for number in range(ROWS)]
        store.upsert(rows, model.describe(model.resize(pictures), [row.sighting.modality for row in rows]))
        service = build_service(store, model, ServiceOptions(footage_roots=(footage,)))
        service.calibration, service.searches = calibration, Searches(store, model, calibration, service.hide)
        service.users.add("anna", Role.ADMINISTER, PASSWORD)
        yield service


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    """Where the server listens: a free port on loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def key(browser: Any, address: str) -> Any:
    """What a browser remembers of somebody who is logged in."""
    with opened(browser, address) as page:
        log_in(page, address)
        return page.context.storage_state()


@contextmanager
def opened(browser: Any, address: str, **settings: Any) -> Iterator[Any]:
    """A page that complains about errors in its console and about requests to other hosts."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | settings))
    context.set_default_timeout(60_000)
    page = context.new_page()
    trouble: list[str] = []

    def hear(message: Any) -> None:
        refused = re.search(r"status of 40[014]", message.text)  # pages of errors, and a picture refused at upload
        if message.type in ("error", "warning") and not refused:
            trouble.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith((address, "blob:")) else trouble.append(asked.url))
    yield page
    context.close()
    assert trouble == []


def log_in(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Find a person").wait_for()


def test_from_a_picture_to_an_answer_a_case_and_a_deletion(
    browser: Any, address: str, service: Service, tmp_path: Path
) -> None:
    picture = tmp_path / "coat.jpg"
    picture.write_bytes(a_picture(3))
    with opened(browser, address) as page:
        log_in(page, address)
        page.locator("#pictures").set_input_files(picture)
        page.locator(".drop canvas").wait_for()
        page.get_by_label("c1").check()
        page.get_by_role("button", name="Search", exact=True).click()

        page.get_by_role("heading", name="1 match").wait_for()
        assert set(page.locator(".card .camera").all_inner_texts()) == {"c1"}
        first = page.locator(".card").first
        assert "97" in first.inner_text()
        assert "✓ match" in first.inner_text()
        assert page.locator(".asked img").evaluate(HEIGHT) == 64

        page.get_by_text("Change where, when or how").click()
        page.get_by_label("c1").uncheck()
        page.get_by_label("c2").check()
        page.get_by_role("button", name="Search again").click()
        page.get_by_role("heading", name="No match").wait_for()
        assert set(page.locator(".card .camera").all_inner_texts()) == {"c2"}

        page.locator(".card .shot").first.click()
        page.get_by_role("heading", name="The whole walk").wait_for()
        assert page.get_by_alt_text("The same crop, enhanced").evaluate(HEIGHT) == 64
        page.get_by_role("button", name="Search again from here").click()
        page.wait_for_url("**/results/**")

        page.get_by_text("Export as a case").click()
        page.get_by_label("Notes").fill("seen at the gate")
        with page.expect_download() as taken:
            page.get_by_role("button", name="One HTML file").click()
        taken.value.save_as(tmp_path / "case.html")
        case = (tmp_path / "case.html").read_text()
        assert "seen at the gate" in case
        assert "data:image/jpeg" in case

        before = service.store.count()
        page.locator(".card .shot").first.click()
        page.get_by_text("Delete for good…").click()
        page.get_by_label("this crop only").check()
        page.get_by_role("button", name="Delete", exact=True).click()  # refused by the browser: nothing is ticked
        page.get_by_label("I know that this cannot be undone").check()
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_text("1 crop was deleted for good.").wait_for()
        assert service.store.count() == before - 1

        page.get_by_role("button", name="Log out").click()
        page.get_by_role("heading", name="Log in").wait_for()
        page.goto(f"{address}/browse")
        assert "/login" in page.url


def test_a_box_is_drawn_and_a_time_is_chosen_with_the_mouse(
    browser: Any, address: str, key: Any, tmp_path: Path
) -> None:
    frame = tmp_path / "frame.png"
    cv2.imwrite(str(frame), np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8))
    with opened(browser, address, storage_state=key) as page:
        page.goto(address)
        content = list(frame.read_bytes())
        page.evaluate(
            """(content) => {
              const carried = new DataTransfer();
              carried.items.add(new File([new Uint8Array(content)], 'frame.png', {type: 'image/png'}));
              const dropped = new DragEvent('drop', {dataTransfer: carried, bubbles: true});
              document.querySelector('.drop').dispatchEvent(dropped);
            }""",
            content,
        )
        canvas = page.locator(".drop canvas")
        canvas.wait_for()
        drag(page, canvas, (0.25, 0.2), (0.75, 0.9))
        box = [float(page.locator(f"#{name}").input_value()) for name in ("left", "top", "width", "height")]
        assert np.allclose(box, [50, 20, 100, 70], atol=2)

        drag(page, page.locator(".timeline svg"), (0.25, 0.5), (0.5, 0.5))
        since, until = page.locator("#from").input_value(), page.locator("#to").input_value()
        assert "2026-11-21T20:02:40" <= since <= "2026-11-21T20:02:50"
        assert "2026-11-21T20:05:25" <= until <= "2026-11-21T20:05:35"
        page.get_by_role("button", name="Search", exact=True).click()
        page.wait_for_url("**/results/**")
        shown = page.locator(".asked img")
        assert shown.evaluate("shown => [shown.naturalWidth, shown.naturalHeight]") == [box[2], box[3]]
        times = page.locator(".card time").all_inner_texts()
        assert times
        assert all("20:03" <= each.split()[1] < "20:06" for each in times)


def drag(page: Any, target: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    target.scroll_into_view_if_needed()
    place = target.bounding_box()
    points = [(place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=3)
    page.mouse.up()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_seen_named_and_reached_by_keyboard(
    browser: Any, address: str, key: Any, scheme: str
) -> None:
    with opened(browser, address, storage_state=key, color_scheme=scheme) as page:
        page.goto(f"{address}/browse")
        page.locator(".card button").first.click()
        page.wait_for_url("**/results/**")
        for each in (*EVERY_PAGE, page.url.removeprefix(address)):
            page.goto(address + each)
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            told = page.evaluate(PROBE)
            assert told["found"] == [], each
            assert told["least"] >= 4.5
            if scheme == "light":
                check_keyboard(page, each)


def check_keyboard(page: Any, each: str) -> None:
    """Tab goes through everything in the order in which it stands, begins with the skip link, and can be seen."""
    wanted = page.evaluate(STOPS)
    before = -1
    for step in range(wanted):
        page.keyboard.press("Tab")
        told = page.evaluate(FOCUSED)
        assert step or told["text"] == "Skip to the content", each
        assert told["ring"] != "none", (each, told)
        assert told["place"] >= before, (each, told)
        before = told["place"]


def test_no_page_is_wider_than_a_phone(browser: Any, address: str, key: Any) -> None:
    with opened(browser, address, storage_state=key, viewport=PHONE, has_touch=True) as page:
        for each in ("/login", *EVERY_PAGE):
            page.goto(address + each)
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], each
        page.goto(f"{address}/browse")
        page.locator(".card button").first.click()
        page.wait_for_url("**/results/**")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        card = page.locator(".card").first.bounding_box()
        assert card["width"] > 0.9 * (PHONE["width"] - 40)  # a single column


def test_without_scripts_one_searches_all_the_same(browser: Any, address: str, key: Any, tmp_path: Path) -> None:
    picture = tmp_path / "coat.jpg"
    picture.write_bytes(a_picture(6))
    with opened(browser, address, storage_state=key, java_script_enabled=False) as page:
        page.goto(address)
        page.get_by_label("choose pictures of one person").set_input_files(picture)
        page.get_by_role("button", name="Search", exact=True).click()
        page.wait_for_url("**/results/**")
        assert page.locator(".card").count() >= 1


def test_a_job_tells_how_far_it_is_until_it_is_done(browser: Any, address: str, key: Any, service: Service) -> None:
    before = service.store.count()
    with opened(browser, address, storage_state=key) as page:
        page.goto(f"{address}/footage")
        page.get_by_role("link", name="recorder/").click()
        page.get_by_role("button", name="Index recorder").click()
        page.locator('.job[data-state="done"]').wait_for()
        assert service.store.count() == before + 4
        page.get_by_text("Report").click()
        assert "4 added" in page.locator(".job pre").inner_text()
