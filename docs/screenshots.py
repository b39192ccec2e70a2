"""Makes the pictures of investigating.md again.

    .venv/bin/python docs/screenshots.py runs/night --footage runs/footage

Needs the gallery of that walk-through, of which it takes a copy, and Chromium. Whoever changes the page looks at the
pictures.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

OUT = Path(__file__).parent / "_static"
DESK, PHONE = (1280, 800), (390, 780)
FIRST_WITH = """async (wanted) => {  // the id of the first clear crop whose search gives so many matches
  const session = await (await fetch('/api/v1/session')).json();
  const ask = async (place, body) => (await fetch('/api/v1/' + place, {
    method: 'POST',
    headers: {'content-type': 'application/json', 'x-csrf-token': session.csrf},
    body: JSON.stringify(body),
  })).json();
  const where = {min_quality: 0.6, modality: 'visible'};
  for (const row of (await ask('browse', {where, limit: 200})).rows) {
    const answer = await ask('search', {rows: [row.id], exclude_seconds: 30});
    if (answer.queries[0].matches === wanted) return row.id;
  }
  throw new Error(`no crop with ${wanted} matches`);
}"""


def main() -> None:
    """Start a server, look at every page, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--footage", type=Path, help="a folder that index jobs may read")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    roots = ["--footage-root", str(given.footage)] if given.footage else []
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(given.gallery, Path(scratch) / "night", ignore=shutil.ignore_patterns("service"))
        command = [sys.executable, "-m", "tapetum", "serve", "--gallery", str(copy), "--port", "0", *roots]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = next(found[1] for line in server.stdout if (found := re.match(r"open (\S+)", line)))
                with (
                    sync_playwright() as play,
                    play.chromium.launch(executable_path=shutil.which("chromium")) as browser,
                ):
                    take(browser, address, given.out)
            finally:
                server.terminate()


def take(browser: Browser, address: str, out: Path) -> None:
    """Look at the pages and keep what is seen.

    Args:
        browser: opened.
        address: with the token, as printed.
        out: folder for the pictures.
    """
    out.mkdir(parents=True, exist_ok=True)

    def keep(page: Page, name: str) -> None:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=out / f"page_{name}.jpg", type="jpeg", quality=78)

    page = browser.new_page(viewport={"width": DESK[0], "height": DESK[1]})
    page.goto(address)
    page.wait_for_url(lambda url: "login" not in url)
    page.get_by_label("Brighten pictures").check()
    home = page.url.rstrip("/")
    found, missed = (page.evaluate(FIRST_WITH, wanted) for wanted in (2, 0))
    picture = page.request.get(f"{home}/api/v1/rows/{found}/crop").body()
    page.locator("#pictures").set_input_files({"name": "coat.jpg", "mimeType": "image/jpeg", "buffer": picture})
    page.locator(".drop canvas").wait_for()
    line = page.locator(".timeline svg").bounding_box()
    assert line is not None
    for press, share in ((page.mouse.down, 0.3), (page.mouse.up, 0.8)):
        page.mouse.move(line["x"] + share * line["width"], line["y"] + 20)
        press()
    keep(page, "search")

    page.goto(f"{home}/browse")
    keep(page, "browse")
    page.goto(f"{home}/sightings/{found}")
    keep(page, "walk")

    for row, name in ((missed, "no_match"), (found, "results")):
        page.goto(f"{home}/?row={row}")
        page.get_by_text("How to search").click()
        page.get_by_label("Leave out the picture's own camera").fill("30")
        page.get_by_role("button", name="Search", exact=True).click()
        page.wait_for_url("**/results/**")
        keep(page, name)
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    keep(page, "phone")

    page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
    page.goto(f"{home}/footage")
    if page.locator(".entries a").count():
        page.locator(".entries a").first.click()
        page.get_by_role("button", name=re.compile("^Index")).click()
        page.locator('.job[data-state="running"] progress[max]').first.wait_for(timeout=60_000)
        page.evaluate("scrollTo(0, 0)")
        keep(page, "footage")
        page.get_by_role("button", name="Cancel").first.click()
        page.locator('.job[data-state="cancelled"], .job[data-state="done"]').first.wait_for(timeout=120_000)


if __name__ == "__main__":
    main()
