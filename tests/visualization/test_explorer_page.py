"""The explorer in a real browser, opened from disk: hover, click, sort, compare, keys, widths."""

import re
import shutil

import pytest
from explorer_scenes import write_explorer

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_explorer(tmp_path_factory.mktemp("explorer"))


class Explorer:
    """A page of the explorer, and what went wrong on it."""

    def __init__(self, browser, folder, width=1280):
        self.context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15000)
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.goto(f"{folder.as_uri()}/index.html")
        self.page.wait_for_selector("body[data-ready]")

    def go(self, place, ready="main > *"):
        self.page.evaluate(f"location.hash = '#/{place}'")
        self.page.wait_for_function(f"location.hash === '#/{place}'")
        self.page.wait_for_selector(f"main[data-view='{place.split('/')[0]}']")
        self.page.wait_for_selector(ready)

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def point(self, u, v, click=False, stage=0):
        """Move to (or click) a place of a stage, in shares of its sides."""
        box = self.page.locator(".stage").nth(stage).bounding_box()
        at = (box["x"] + u * box["width"], box["y"] + v * box["height"])
        (self.page.mouse.click if click else self.page.mouse.move)(*at)

    def tokens(self):
        rows = self.page.locator(".panel").first.locator(".token")
        return [int(token) for token in rows.evaluate_all("rows => rows.map(row => row.dataset.token)")]


@pytest.fixture
def explorer(browser, folder):
    explorer = Explorer(browser, folder)
    yield explorer
    assert explorer.errors == []
    explorer.context.close()


@pytest.fixture
def narrow(browser, folder):
    explorer = Explorer(browser, folder, width=390)
    yield explorer
    assert explorer.errors == []
    explorer.context.close()


READY = ".stage[data-ready]"


def test_hovering_names_the_tokens_of_the_pixel_and_their_class(explorer):
    explorer.go("image/0", READY)
    assert explorer.tokens() == [0, 1, 2]  # nothing is pointed at: all active ones, by cover
    explorer.point(0.9, 0.5)
    assert explorer.tokens() == [1]
    panel = explorer.page.locator(".panel").inner_text()
    assert "Prediction right, truth right" in panel and "67\u00a0%" in panel and "right 100\u00a0%" in panel
    explorer.point(0.12, 0.3)  # on the square, which lies on the left half
    assert explorer.tokens() == [2, 0]
    assert explorer.page.locator(".stage").get_attribute("data-highlight") == "0 2"
    explorer.point(0.5, -0.1)
    assert explorer.tokens() == [0, 1, 2]


def test_the_lit_region_is_where_the_token_is(explorer):
    explorer.go("image/0", READY)
    explorer.point(0.9, 0.5)
    alpha = """() => { const c = document.querySelector('.region-layer'), x = c.getContext('2d');
        return [0, 4].map(column => Array.from(x.getImageData(column, 3, 1, 1).data)); }"""
    dark, light = explorer.page.evaluate(alpha)
    assert sum(dark[:3]) < 80 < sum(light[:3])


def test_clicking_pins_a_pixel_and_shows_its_attention(explorer):
    explorer.go("image/0", READY)
    explorer.point(0.3, 0.8, click=True)
    explorer.point(0.9, 0.5)
    assert explorer.tokens() == [0] and "Pinned" in explorer.page.locator(".panel").inner_text()
    # the token, then whom it attends to, most first
    assert explorer.page.locator(".arcs text").all_text_contents() == ["0", "1", "2"]
    attended = explorer.page.locator(".panel .link").all_inner_texts()
    assert attended[0].split() == ["1", "right", "60.0", "%"]
    explorer.page.keyboard.press("Escape")
    assert explorer.page.locator(".arcs text").count() == 0


def test_clicking_a_token_shows_it_over_all_images(explorer):
    explorer.go("image/1", READY)
    explorer.page.locator(".token[data-token='2']").click()
    explorer.page.wait_for_selector(".tiles[data-ready]")
    assert explorer.page.locator("main h2").inner_text().endswith("Token 2: spot 100\u00a0%")
    assert explorer.page.locator(".tiles .card").count() == 4
    facts = explorer.page.locator(".facts").inner_text()
    assert "Attends to" in facts and "Nearest tokens" in facts and "100\u00a0%" in facts
    explorer.page.locator(".tiles .card").first.click()
    explorer.page.wait_for_selector(READY)
    assert "#/image/" in explorer.page.url


def test_the_labels_are_painted_and_errors_found(explorer):
    explorer.go("image/2", READY)
    explorer.page.get_by_role("button", name="Errors").click()
    count = """() => { const context = document.querySelector('.label-layer').getContext('2d');
        const d = context.getImageData(0, 0, 64, 48).data;
        let wrong = 0, ignored = 0;
        for (let i = 0; i < d.length; i += 4) { if (d[i + 3] > 200) wrong++; else if (d[i + 3]) ignored++; }
        return [wrong, ignored]; }"""
    # rows 0..7 are predicted as class 1: wrong in the 32 columns where the truth is 0; the square starts lower
    assert explorer.page.evaluate(count) == [8 * 32, 64]
    explorer.page.keyboard.press("1")
    assert not explorer.page.locator(".label-layer").is_visible()


def test_the_table_sorts_by_every_figure(explorer):
    explorer.page.get_by_role("button", name="Table").click()
    rows = "tbody tr:not(.total) th"
    assert explorer.texts(rows) == [f"scene_{i}.png" for i in range(4)]
    assert explorer.texts("tr.total td")[0] == "75.0"
    explorer.page.locator("[data-sort=mIoU]").click()
    assert explorer.texts(rows) == [f"scene_{i}.png" for i in (0, 1, 2, 3)]
    explorer.page.locator("[data-sort=mIoU]").click()
    assert explorer.texts(rows) == [f"scene_{i}.png" for i in (3, 2, 1, 0)]
    assert explorer.page.locator("th[aria-sort=ascending]").inner_text().startswith("mIoU")
    explorer.page.locator("[data-sort=S_C]").click()  # 0, 0.2, 0.4, 0.1
    assert explorer.texts(rows) == [f"scene_{i}.png" for i in (2, 1, 3, 0)]
    explorer.page.get_by_role("button", name="Cards").click()
    assert explorer.texts(".gallery .name") == [f"scene_{i}.png" for i in (2, 1, 3, 0)]


def test_two_runs_are_compared(explorer):
    explorer.go("compare")
    table = explorer.page.locator("table.plain").first.inner_text()
    assert re.search(r"mIoU ↑\s+75\.0\s+76\.0\s+\+1\.0 better", table)
    assert re.search(r"S_C ↓\s+0\.250\s+–\s+–", table)
    assert re.search(
        r"right\s+70\.0\s+80\.0\s+\+10\.0 better", explorer.page.locator("table.plain").nth(1).inner_text()
    )
    rows = "table.sortable tbody th"
    assert explorer.texts(rows) == [f"scene_{i}.png" for i in (3, 2, 1, 0)]  # the second gains most on the last
    explorer.page.locator("[data-sort=difference]").click()
    assert explorer.texts(rows) == [f"scene_{i}.png" for i in range(4)]
    explorer.page.locator("table.sortable tbody a").first.click()
    explorer.page.wait_for_function("document.querySelectorAll('.stage[data-ready]').length === 2")
    assert explorer.texts(".column h3") == ["first", "second"]
    explorer.point(0.9, 0.5)
    assert explorer.tokens() == [1] and "Prediction right" in explorer.page.locator(".panel").nth(1).inner_text()


def test_heat_map_and_attention_open_tokens(explorer):
    explorer.go("heatmap", ".matrix canvas")
    explorer.page.locator(".matrix").focus()
    explorer.page.keyboard.press("ArrowDown")
    assert "Token 0" in explorer.page.locator("#tip").inner_text()
    explorer.page.keyboard.press("ArrowDown")
    assert explorer.page.locator("#tip").inner_text().startswith("Token 1: 0.0\u00a0%")
    explorer.page.keyboard.press("Enter")
    explorer.page.wait_for_selector("main[data-view=token]")
    assert explorer.page.url.endswith("#/token/1")
    explorer.go("attention", ".matrix canvas")
    explorer.page.locator(".matrix").focus()
    for key in ("ArrowDown", "ArrowRight"):
        explorer.page.keyboard.press(key)
    assert "Token 0 (left) gives 60" in explorer.page.locator("#tip").inner_text()
    explorer.page.get_by_role("button", name="Layer 2").click()
    assert explorer.page.locator("[aria-pressed=true]", has_text="Layer 2").count() == 1


@pytest.mark.slow
def test_keys_alone_are_enough(explorer):
    page = explorer.page
    page.keyboard.press("k")
    page.wait_for_selector(".token-gallery .card")
    assert page.locator(".token-gallery .card").count() == 3  # the idle token is counted, not shown
    assert "1 nowhere" in page.locator("main").inner_text()
    page.keyboard.press("i")
    page.wait_for_selector("main[data-view=images]")
    page.locator(".gallery a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(READY)
    page.locator(".stage").focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    assert explorer.tokens() == [1]
    page.keyboard.press("Enter")
    assert "Pinned" in page.locator(".panel").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.hash === '#/image/1'")
    page.keyboard.press("r")
    page.wait_for_selector("text=This run has no tokens")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_nothing_is_wider_than_a_telephone(narrow):
    places = ["images", "image/0", "tokens", "token/1", "heatmap", "attention", "compare", "token/9", "image/9"]
    widths = {}
    for place in places:
        narrow.go(place)
        narrow.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        widths[place] = narrow.page.evaluate("document.documentElement.scrollWidth")
    assert widths == dict.fromkeys(places, 390)


def test_touching_is_enough(narrow):
    narrow.go("image/0", READY)
    narrow.point(0.9, 0.5, click=True)
    assert narrow.tokens() == [1]
    narrow.page.locator(".token").first.click()
    narrow.page.wait_for_selector(".tiles[data-ready]")
    assert narrow.page.url.endswith("#/token/1")


@pytest.mark.slow
def test_without_truth_the_prediction_gives_the_classes(browser, tmp_path):
    explorer = Explorer(browser, write_explorer(tmp_path, truth=False, runs=1))
    assert "measured against the prediction" in explorer.page.locator("main").inner_text()
    explorer.go("image/0", READY)
    assert explorer.texts("[aria-label=Layer] button") == ["Photo", "Prediction", "Regions"]
    assert explorer.errors == []
    explorer.context.close()


@pytest.mark.slow
def test_a_folder_that_is_not_whole_says_so(browser, tmp_path):
    write_explorer(tmp_path)
    (tmp_path / "data/run0/0000.js").unlink()
    explorer = Explorer(browser, tmp_path)
    explorer.go("image/0", "[role=alert]")
    assert "data/run0/0000.js is missing. Copy the whole folder" in explorer.page.locator("[role=alert]").inner_text()
    explorer.context.close()
