import re

import pytest

from vitscope.cli.index import entries
from vitscope.report.number import plain, with_error
from vitscope.report.text import breakable, definition, sentence

PAREN = '<mo stretchy="false" lspace="0" rspace="0">%s</mo>'


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.68, 0.046883, "0.680 ± 0.047"),
        (-2.5832, 0.0367, "−2.583 ± 0.037"),
        (116.4922, 0.0, "116.5"),
        (116.4922, 1e-9, "116.5"),
        (0.1, float("nan"), "0.1000"),
        (12345.0, 678.0, "12,340 ± 680"),
        (0.97954, 3.1e-6, "0.979540 ± 0.000003"),
        (5.97e-5, 3.4e-6, "5.97e−05 ± 3.4e−06"),
        (float("nan"), 0.1, "n/a"),
        (0.0, 0.0, "0"),
    ],
)
def test_the_error_decides_the_digits(mean, error, text):
    assert with_error(mean, error) == text


@pytest.mark.parametrize(("value", "text"), [(1234567.0, "1,234,567"), (0.00001234, "1.234e−05"), (3.14159, "3.142")])
def test_plain_numbers_have_four_digits(value, text):
    assert plain(value) == text


@pytest.mark.parametrize(
    ("docstring", "html"),
    [
        ("One.\n\nTwo <b>.", "<p>One.</p><p>Two &lt;b&gt;.</p>"),
        ("Is <i> ``a < b`` or :class:`Run`?", "<p>Is &lt;i&gt; <code>a &lt; b</code> or <code>Run</code>?</p>"),
        ("* one\n* two", "<ul><li>one</li><li>two</li></ul>"),
        (".. math:: \\unknown{<}", '<div class="formula"><code class="formula">\\unknown{&lt;}</code></div>'),
    ],
)
def test_docstrings_become_html(docstring, html):
    assert definition(docstring) == html


@pytest.mark.parametrize(
    ("latex", "mathml"),
    [
        ("x_1^2", "<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>"),
        ("x^2_1", "<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>"),
        ("\\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
        ("\\frac{a}{b+c}", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi><mo>+</mo><mi>c</mi></mrow></mfrac>"),
        ("\\sum_{i}^N", "<msubsup><mo>∑</mo><mrow><mi>i</mi></mrow><mi>N</mi></msubsup>"),
        ("\\bar A", '<mover accent="true"><mi>A</mi><mo stretchy="false">¯</mo></mover>'),
        ("a < -\\sigma", "<mi>a</mi><mo>&lt;</mo><mo>−</mo><mi>σ</mi>"),
        ("\\nabla_\\theta^2", "<msubsup><mi>∇</mi><mi>θ</mi><mn>2</mn></msubsup>"),
        ("\\Big(\\tfrac12\\Big)", f"{PAREN % '('}<mfrac><mn>1</mn><mn>2</mn></mfrac>{PAREN % ')'}"),
        ("\\mathrm{CE}", '<mi mathvariant="normal">CE</mi>'),
        ("\\text{keys of <b>}", "<mtext>keys of &lt;b&gt;</mtext>"),
    ],
)
def test_formulas_become_mathml(latex, mathml):
    assert sentence(f":math:`{latex}`") == f'<math display="inline"><mrow>{mathml}</mrow></math>'


@pytest.mark.parametrize("kind", entries())
def test_every_formula_of_what_is_registered_can_be_read(kind):
    pages = {name: str(definition(entry.definition)) for name, entry in entries()[kind].items()}
    text = {name: re.sub(r"<[^>]*>", " ", html) for name, html in pages.items()}
    assert [name for name, html in pages.items() if 'class="formula"><code' in html or "<code class=" in html] == []
    assert [(name, re.findall(r"\\\w+", one)) for name, one in text.items() if "\\" in one] == []


@pytest.mark.parametrize("latex", ["{a", "x_", "\\frac1", "\\nothing"])
def test_a_formula_that_cannot_be_read_stays_as_it_was_written(latex):
    assert sentence(f":math:`{latex}`") == f'<code class="formula">{latex}</code>'


def test_names_break_at_their_joints_and_stay_escaped():
    assert breakable("timm/a_b<c") == "timm/<wbr>a_<wbr>b&lt;c"
