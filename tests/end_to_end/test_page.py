"""The page of real runs in a headless browser: wide and narrow, light and dark, printed."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr

import vitscope
from vitscope.data import Images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.feature_variance import FeatureVariance
from vitscope.engine.grid import Axis, StudyGrid, points, unit_axis
from vitscope.engine.measure import measure
from vitscope.engine.study import study
from vitscope.findings.checkup import claims_of
from vitscope.interventions.frequency_noise import FrequencyNoise
from vitscope.interventions.lesion import Lesion
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.report import compare, report
from vitscope.runs.run import Run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed, which opens the page")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui", reason="as above").WebDriverWait

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no Chromium with its chromedriver: no browser to open the page in"
)

UNDRAWN = """return [...document.querySelectorAll('.canvas')].filter(c => !c.closest('details:not([open])'))
  .filter(c => !c.querySelector('.trace, .heatmaplayer image, .contourlayer path, .gl-container, .no-webgl') ||
    c.querySelector('.main-svg').clientWidth < 100)
  .map(c => c.dataset.file)"""
RIGHTMOST = """return Math.max(...[...document.querySelectorAll('.main-svg')]
  .map(figure => figure.getBoundingClientRect().right))"""
MODELS = ("vit-micro", "timm/resnet10t")
MARK = """const plot = document.querySelector('#run1-feature-variance .depth');
  return (parseFloat(getComputedStyle(plot, '::after').left) - 52) / (plot.clientWidth - 66) * 14"""
UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true; })"
OVERFLOW = """return [...document.querySelectorAll('body, body *')]
  .filter(e => !e.closest('.scroll, .formula, .command, svg, [hidden]'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + '.' + e.className).slice(0, 5)"""


def noisy_images() -> Images:
    """Eight images of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    return vitscope.images((pixels, np.arange(8) % 4))


@pytest.fixture(scope="module", name="runs")
def of_two_models() -> tuple[Run, ...]:
    """Two models of random weights."""
    found = (measure(vitscope.load(model), noisy_images(), vitscope.default_diagnostics()) for model in MODELS)
    return tuple(run.with_claims(claims_of(run)) for run in found)


@pytest.fixture(scope="module")
def page(tmp_path_factory, runs) -> str:
    """The address of a page of two runs."""
    return report(runs, tmp_path_factory.mktemp("page") / "page.html").as_uri()


@pytest.fixture(scope="module")
def study_page(tmp_path_factory) -> str:
    """The address of a page of studies: over units, over numbers and names, over two directions, and eigenvalues."""
    subject, images = vitscope.load("vit-micro"), noisy_images()
    left_out = unit_axis("lesion", (1, 2, 5), subject.places, "Unit left out")
    lesions = StudyGrid((left_out,), tuple((Lesion((layer,)),) for layer in (1, 2, 5)))
    axes = Axis("ranking", ("weak", "strong"), "Strength"), Axis("frequency_band", (0.3, 0.6, 0.9), "Band", "pi")
    strength = {"weak": 0.1, "strong": 1.0}
    noises = StudyGrid(axes, tuple((FrequencyNoise(float(f), strength=strength[str(s)]),) for s, f in points(axes)))
    runs = [study(subject, images, grid, [Accuracy(), FeatureVariance()]) for grid in (lesions, noises)]
    words = {
        "title": "Curvature",
        "question": "How is its loss curved?",
        "references": ["a paper"],
        "definition": "One.",
    }
    by_hand = {"land": landscape().assign_attrs(words), "curvature": eigenvalues().assign_attrs(words)}
    curved = Run(xr.DataTree.from_dict({"/": runs[0].tree.to_dataset(), **by_hand}))
    return report([*runs, curved], tmp_path_factory.mktemp("study") / "page.html").as_uri()


@pytest.fixture(scope="module")
def compare_page(tmp_path_factory, runs) -> str:
    """The address of a page that compares two models."""
    return compare(runs, tmp_path_factory.mktemp("compare") / "page.html").as_uri()


@pytest.fixture(params=["study_page", "compare_page"])
def other_page(request) -> str:
    """Either of them."""
    return request.getfixturevalue(request.param)


def landscape() -> xr.Dataset:
    """A bowl over decades."""
    at = np.linspace(-1, 1, 5)
    heights = 10 ** (3 * (at[:, None] ** 2 + at[None] ** 2) - 2)
    quantity = Quantity("loss", "Loss", "nats", "The mean loss.", "Smaller is better.")
    coords = {"first": at, "second": at}
    return label_quantity(quantity, ("first", "second"), heights, 0.1 * heights, np.full((5, 5), 8), coords)


def eigenvalues() -> xr.Dataset:
    """Of both signs, over decades."""
    values = np.sinh(np.random.default_rng(0).normal(size=(4, 5)) * 4)
    quantity = Quantity("largest", "Eigenvalues", "nats", "Of the Hessian.", "Nobody knows.")
    coords = {"minibatch": np.arange(4), "rank": np.arange(5)}
    return label_quantity(quantity, ("minibatch", "rank"), values, np.full((4, 5), 0.01), np.full((4, 5), 1), coords)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def look(browser, page: str, width: int, scheme: str) -> None:
    """Open the page at a width, light or dark."""
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.get(page)
    drawn = "return document.readyState === 'complete' && !!document.querySelector('.js-plotly-plot')"
    WebDriverWait(browser, 60).until(lambda browser: browser.execute_script(drawn))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_every_figure_is_drawn_and_nothing_overflows(browser, page, width, scheme):
    look(browser, page, width, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OVERFLOW) == []
    assert browser.execute_script("return document.querySelectorAll('.js-plotly-plot').length") > 15
    assert browser.execute_script(UNDRAWN) == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_studies_and_comparisons_are_drawn_without_overflow_error_or_network(browser, other_page, width, scheme):
    browser.get_log("browser")
    browser.get_log("performance")
    look(browser, other_page, width, scheme)
    browser.execute_script(UNFOLD)
    browser.execute_async_script("setTimeout(arguments[0], 1500)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OVERFLOW) == []
    assert browser.execute_script("return document.querySelectorAll('.js-plotly-plot').length") > 8
    assert browser.execute_script(UNDRAWN) == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert '"url":"http' not in " ".join(entry["message"] for entry in browser.get_log("performance"))


def test_what_is_unfolded_is_drawn_and_does_not_overflow(browser, page):
    look(browser, page, 360, "light")
    browser.execute_script(UNFOLD)
    browser.execute_async_script("setTimeout(arguments[0], 1000)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.execute_script(UNDRAWN) == []


def test_nothing_is_loaded_from_anywhere(browser, page):
    browser.get_log("performance")
    look(browser, page, 1280, "light")
    messages = " ".join(entry["message"] for entry in browser.get_log("performance"))
    assert '"method":"Network.requestWillBeSent"' in messages
    assert '"url":"http' not in messages
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert browser.execute_script(loaded) == []


def test_figures_follow_the_colour_scheme(browser, page):
    colours = "return getComputedStyle(document.querySelector('.xtick text')).fill"
    look(browser, page, 1280, "light")
    light = browser.execute_script(colours)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_async_script("setTimeout(arguments[0], 600)")
    assert (light, browser.execute_script(colours)) == ("rgb(89, 98, 108)", "rgb(163, 173, 183)")


def test_pointing_at_a_unit_marks_it_in_every_figure(browser, page):
    look(browser, page, 1280, "light")
    browser.execute_script(
        """const plot = document.querySelector('#run1-feature-variance .depth'), box = plot.getBoundingClientRect();
        const x = box.left + 52 + (box.width - 66) * 3.5 / 14;
        plot.dispatchEvent(new PointerEvent('pointermove', {clientX: x, clientY: box.top + 50}))"""
    )
    said = browser.execute_script("return document.querySelector('#run1 .readout').textContent")
    assert said == "blocks.1.attn (attention)"
    marks = "return [...document.querySelectorAll('%s .depth')].map(e => getComputedStyle(e, '::after').display)"
    assert set(browser.execute_script(marks % "#run1")) == {"block"}
    assert set(browser.execute_script(marks % "#run2")) == {"none"}
    assert browser.execute_script(MARK) == pytest.approx(3, abs=0.01)


def test_a_table_can_be_copied_and_downloaded(browser, page):
    look(browser, page, 1280, "light")
    browser.execute_script(
        """window.kept = []; const make = URL.createObjectURL;
        URL.createObjectURL = blob => { blob.text().then(text => kept.push(text)); return make(blob); };
        Object.defineProperty(navigator, 'clipboard', {value: {writeText: async text => kept.push(text)}});
        const table = document.querySelector('.tables .table'); table.open = true;
        table.querySelector('.download').click(); table.querySelector('.copy').click()"""
    )
    WebDriverWait(browser, 20).until(lambda browser: len(browser.execute_script("return kept")) == 2)
    one, other = browser.execute_script("return kept")
    assert one == other
    assert one.startswith("quantity,unit,mean,standard_error,samples\ntop1,1,")


def test_on_paper_the_page_is_light_and_its_figures_fit(browser, page):
    look(browser, page, 1280, "dark")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.execute_script(RIGHTMOST) <= 688
    buttons = "return [...document.querySelectorAll('button')].filter(button => button.offsetParent)"
    assert browser.execute_script(buttons) == []
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"


def test_a_link_opens_what_is_folded(browser, page):
    look(browser, page, 1280, "light")
    browser.execute_script("location.hash = '#run1-attention-entropy-relative-entropy'")
    browser.execute_async_script("setTimeout(arguments[0], 500)")
    drawn = "return document.querySelectorAll('#run1-attention-entropy-relative-entropy .js-plotly-plot').length"
    assert browser.execute_script(drawn) == 1
