"""One browser for all tests of pages, and one page with every kind of error."""

import shutil
from types import SimpleNamespace

import pytest
import worlds_of_pages as worlds

from surface_report.__main__ import main

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
ARGUMENTS += ("--disable-sync", "--no-first-run", "--force-color-profile=srgb")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what checks of cases find out of the user's cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; the tests that need it are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive a browser with")
    if not CHROMIUM:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def opened(browser):
    """A function that opens a page from disk; at the end, none asked for anything and none had an error."""
    contexts, asked, said = [], [], []

    def open_page(path, width=1600, height=1000, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        if page.locator("#slices-viewer").count():
            page.wait_for_selector('#slices-viewer[aria-busy="false"]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert sum(url.startswith("file:") for url in asked) == len(contexts)
    assert said == []


@pytest.fixture(scope="session")
def scored_world(tmp_path_factory):
    """Three cases of two scrolls: one with every error, one perfect, one empty; without errors in another."""
    folder = tmp_path_factory.mktemp("pages")
    image, label = worlds.two_sheets()
    flawed, perfect = worlds.with_errors(label), (label == 1).astype("uint8")
    world = SimpleNamespace(folder=folder, label=label, flawed=flawed, perfect=perfect)
    world.images = worlds.write_volumes(folder / "competition" / "test_images", dict.fromkeys(("7", "8", "9"), image))
    (folder / "competition" / "test.csv").write_text("id,scroll_id\n7,100\n8,100\n9,200\n")
    world.truth = worlds.write_volumes(folder / "labels", dict.fromkeys(("7", "8", "9"), label))
    masks = {"7": flawed, "8": perfect, "9": flawed * 0}
    world.submission = worlds.write_submission(folder / "a.zip", masks)
    world.other = worlds.write_submission(folder / "b.zip", masks | {"7": perfect})
    return world


@pytest.fixture(scope="session")
def scored_page(scored_world):
    """The page of both submissions, scored on the way."""
    out = scored_world.folder / "page.html"
    asked = {"submission": scored_world.submission, "compare": scored_world.other, "truth": scored_world.truth}
    asked |= {"images": scored_world.images, "out": out}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("surface_report.scoring.cores", lambda: 1)
        assert main([word for name, path in asked.items() for word in (f"--{name}", str(path))]) == 0
    return out
