"""The gallery in a real browser: opened from disk and served, searched, filtered, paged, with hostile prompts.

Needs Chromium: CHROMIUM, or `chromium` in the path. Screenshots are left in build/gallery, to be looked at.
"""

import http.server
import os
import re
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from benchmarks.made_up_gallery import HOSTILE, PER_PROMPT, make_output, prompt_of
from t2i_core.reports.gallery.write import write_gallery

IMAGES = 12_000
SCREENSHOTS = Path("build/gallery")
FAILED = len(range(5, IMAGES, 1013))
LOADED = "body[data-loaded=all]"
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def output(tmp_path_factory):
    """An output of made-up images with its gallery."""
    root = tmp_path_factory.mktemp("gallery")
    write_gallery(make_output(root, IMAGES), 0, on_start=lambda total: None, on_images=lambda count: None)
    return root


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
        yield playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def served(output):
    """The address of the output, served by a web server."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(output))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def open_page(browser, output):
    """Open the page: `open_page("#sort=score_clip", colour="dark", phone=True)`. An error in it fails the test."""
    contexts, errors = [], []

    def call(address="", base=None, colour="light", phone=False):
        size = {
            "viewport": {"width": 390, "height": 844},
            "device_scale_factor": 2,
            "is_mobile": True,
            "has_touch": True,
        }
        context = browser.new_context(color_scheme=colour, **(size if phone else {}))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.append(request.url) if elsewhere(request.url) else None)
        page.goto(f"{base or output.as_uri()}/gallery/index.html{address}")
        page.wait_for_selector(LOADED, timeout=60_000)
        return page

    def elsewhere(url):
        return not url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:"))

    yield call
    for context in contexts:
        context.close()
    assert errors == []


def keep(page, name):
    page.wait_for_timeout(500)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def count(page):
    return int(re.match(r"[\d,]+", page.inner_text("#count"))[0].replace(",", ""))


def expect_count(page, number):
    expect(page.locator("#count")).to_have_text(re.compile(rf"^{number:,} "))


def first_tile(page):
    return page.locator(".tile[data-position]").first


@pytest.mark.parametrize("how", ["from disk", "served"])
def test_it_opens_with_thumbnails_and_only_the_tiles_that_are_seen(open_page, served, how):
    page = open_page(base=served if how == "served" else None)
    expect_count(page, IMAGES)
    expect(page.locator(".tile img").first).to_have_attribute("src", re.compile("^data:image/jpeg"))
    page.wait_for_function("[...document.querySelectorAll('.tile img')].every((image) => image.naturalWidth > 0)")
    assert page.locator(".tile").count() < 200
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(f".tile[data-position='{IMAGES - 1}']")
    keep(page, f"grid {how}")


def test_search_finds_prompts_as_they_are_typed(open_page):
    page = open_page()
    page.press("body", "/")
    page.keyboard.type("lighthouse variation 100", delay=5)
    page.wait_for_timeout(600)
    wanted = [
        row for row in range(IMAGES // PER_PROMPT) if all(w in prompt_of(row) for w in ("lighthouse", "variation 100"))
    ]
    expect_count(page, PER_PROMPT * len(wanted))
    page.press("#search", "Escape")
    expect_count(page, IMAGES)
    page.fill("#search", "nothing has this")
    expect_count(page, 0)
    page.click("#clear")
    expect_count(page, IMAGES)


def test_pills_and_filters_narrow_what_is_shown(open_page):
    page = open_page()
    page.click(".pill:has-text('Failed')")
    expect_count(page, FAILED)
    expect(page.locator(".none.failed").first).to_be_visible()
    page.click(".pill:has-text('All')")
    page.click(".pill:has-text('Duplicate')")
    expect_count(page, len(range(0, IMAGES, 997)))
    page.click(".pill:has-text('All')")
    page.click("#more")
    page.select_option("#filters [name=size]", "832×1216")
    expect_count(page, IMAGES // 4)
    page.select_option("#filters [name=by]", "score_clip")
    page.fill("#filters [name=least]", "0.3")
    page.wait_for_timeout(300)
    narrowed = count(page)
    assert 0 < narrowed < IMAGES // 4
    keep(page, "filters")
    page.reload()
    page.wait_for_selector(LOADED)
    assert count(page) == narrowed, "the address holds what is asked for"
    seed = page.evaluate("gallery.model.get('seed', 4)")
    page.click("#clear")
    page.fill("#filters [name=seed]", seed)
    expect_count(page, 1)


def test_images_are_sorted_by_score(open_page):
    page = open_page()
    page.select_option("#sort", "score_clip")
    expect(first_tile(page)).to_be_visible()
    script = "[...document.querySelectorAll('.tile .value')].slice(0, 12).map((value) => Number(value.textContent))"
    values = page.evaluate(script)
    assert values == sorted(values, reverse=True)
    page.click("#direction")
    page.wait_for_timeout(300)
    assert page.evaluate(script) == sorted(page.evaluate(script))
    keep(page, "sorted")


def test_an_image_has_a_page_with_its_prompt_settings_scores_and_neighbours_by_keyboard(open_page):
    page = open_page()
    page.locator(".tile[data-position='1']").click()
    expect(page.locator("#place")).to_have_text(f"2 of {IMAGES:,}")
    facts = page.locator("#facts")
    for text in (
        prompt_of(0),
        "Guidance scale",
        "Clip",
        "text2image again.jsonl --model=flux-dev",
        "float16",
        "sample0_condition0/sample0_condition0_1.png",
    ):
        expect(facts).to_contain_text(text)
    page.wait_for_function("document.querySelector('#stage img.loaded')?.naturalWidth === 256")
    keep(page, "image")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#place")).to_have_text(f"3 of {IMAGES:,}")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#place")).to_have_text(f"1 of {IMAGES:,}")
    page.keyboard.press("End")
    expect(page.locator("#place")).to_have_text(f"{IMAGES:,} of {IMAGES:,}")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    page.go_forward()
    expect(page.locator("#viewer")).to_be_visible()
    page.go_back()
    expect(page.locator("#viewer")).to_be_hidden()


def test_previous_and_next_follow_the_search(open_page):
    page = open_page("#search=fox")
    total = count(page)
    first_tile(page).click()
    expect(page.locator("#place")).to_have_text(f"1 of {total:,}")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#facts")).to_contain_text("fox")


def test_variants_of_a_prompt_stand_side_by_side(open_page):
    page = open_page("#image=1")
    expect(page.locator(".strip a")).to_have_count(PER_PROMPT)
    page.keyboard.press("v")
    expect(page.locator("figure")).to_have_count(PER_PROMPT)
    page.wait_for_function("[...document.querySelectorAll('figure img')].every((image) => image.naturalWidth > 0)")
    keep(page, "side by side")
    page.locator("figure").nth(3).click()
    expect(page.locator("#place")).to_have_text(f"4 of {IMAGES:,}")
    page.keyboard.press("Escape")
    page.check("#group")
    expect(page.locator(".prompt-heading").first).to_contain_text(prompt_of(0))
    keep(page, "by prompt")


def test_many_images_are_paged(open_page):
    page = open_page()
    page.evaluate("PAGE_IMAGES = 5000; layOut()")
    expect(page.locator("#page-text")).to_have_text("page 1 of 3")
    page.click("#page-on")
    page.click("#page-on")
    expect(page.locator("#page-text")).to_have_text("page 3 of 3")
    page.wait_for_selector(".tile[data-position='10000']")
    expect(page.locator("#page-on")).to_be_disabled()
    page.go_back()
    expect(page.locator("#page-text")).to_have_text("page 2 of 3")


@pytest.mark.parametrize("row", range(3, 3 + len(HOSTILE)))
def test_hostile_prompts_are_text_and_nothing_else(open_page, row):
    page = open_page(f"#image={row * PER_PROMPT}")
    prompt = HOSTILE[row - 3]
    page.wait_for_selector("#facts .prompt")
    assert page.evaluate("document.querySelector('#facts .prompt').textContent") == prompt
    assert "pwned" not in page.title()
    assert page.locator("script").count() <= 4
    assert page.locator("img[src=x]").count() == 0
    width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, "nothing is wider than the window"
    if row in (3, 5, 7):
        keep(page, f"hostile {row}")


def test_a_failed_image_says_why(open_page):
    page = open_page("#image=5")
    expect(page.locator("#stage")).to_contain_text("the image is black; try another seed")


@pytest.mark.parametrize("colour", ["light", "dark"])
def test_it_can_be_read_on_a_phone_and_in_both_colours(open_page, colour):
    for address, name in (("", "grid"), ("#image=1", "image"), ("#view=report", "report")):
        page = open_page(address, colour=colour, phone=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        keep(page, f"phone {name} {colour}")
        keep(open_page(address, colour=colour), f"desk {name} {colour}")
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(ink, paper) > 7


def contrast(first, second):
    """The contrast of two colours as WCAG defines it."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_are_chosen_by_hand_too(open_page):
    page = open_page(colour="light")
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"


def test_the_report_has_plots_and_numbers(open_page):
    page = open_page()
    page.click("#show-report")
    expect(page.locator("#report .card").first).to_contain_text(f"{IMAGES:,}")
    assert page.locator("#report svg").count() >= 6
    expect(page.locator("#report")).to_contain_text("the image is black; try another seed")
    page.go_back()
    expect(page.locator("#grid")).to_be_visible()


def test_a_missing_script_is_named(open_page, output, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(output / "gallery", copy / "gallery")
    shutil.rmtree(copy / "gallery/details")
    page = open_page(base=copy.as_uri())
    first_tile(page).click()
    page.keyboard.press("Escape")
    expect(page.locator("#problem")).to_contain_text("could not be loaded")


def test_without_the_hidden_folder_pictures_are_shown_by_their_names(open_page, output, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(output / "gallery", copy / "gallery")
    (copy / "sample0_condition0").mkdir(parents=True)
    picture = next((output / ".t2i/images").rglob("*.png"))
    shutil.copy(picture, copy / "sample0_condition0/sample0_condition0_1.png")
    page = open_page("#image=1", base=copy.as_uri())
    page.wait_for_selector("#stage img.loaded")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#stage")).to_contain_text("The file is not there")
