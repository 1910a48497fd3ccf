import csv
import io
import os
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from PIL import Image
from report_run import HOSTILE, claim, dataset, group, run

from vitscope import images
from vitscope.engine.reading.mistakes import mistakes
from vitscope.engine.reading.scores import Scores
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.errors import UserError
from vitscope.report import compare, figures, report
from vitscope.report.colour import DARK, LIGHT
from vitscope.report.page import page
from vitscope.report.view import MOST_FACTS, RunView
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

GROUPS = {
    "one": group("Title one", "Which?", dataset("top", "layer"), dataset("other", "layer", "head")),
    "two": group(HOSTILE, "What?", dataset("number"), dataset("bins", "confidence_bin")),
    "three": group("Title three", "Which?", dataset("spectrum", "layer", "frequency", unit=HOSTILE)),
}


def own_part(html: str) -> str:
    """The page without plotly's library and the page's script."""
    return html[: html.rindex("</main>")]


@pytest.fixture(scope="module")
def html() -> str:
    return own_part(page([run(GROUPS)]))


def test_hostile_names_are_only_ever_text(html):
    assert "<script>alert" not in html
    assert "<script>alert('x')" in unescape(html)
    assert re.findall(r"<script[^>]*>", html) == ['<script type="application/json">'] * 5


def test_figures_are_json_without_markup(html):
    figures_json = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(figures_json) == 5
    assert not [text for text in figures_json if re.search(r"[<>&]", text)]


def test_the_page_loads_nothing(html):
    assert re.findall(r'(?:src|href)="(?!#|data:,)[^"]*"', html) == []
    assert re.findall(r"(?:src|href)=[^\"]", html) == []
    assert not re.search(r"@import|url\(", html)


def test_questions_stand_in_order_of_first_appearance(html):
    assert re.findall(r"<h2>(W.*?)</h2>", html) == ["Which?", "What?"]
    assert html.index("Title one") < html.index("Title three")


def test_a_run_without_claims_says_so(html):
    assert "No findings were drawn from this run" in html


def test_three_findings_are_open_and_the_rest_folded_by_weight():
    claims = tuple(claim(f"c{weight}", weight / 10, "one/top") for weight in (1, 5, 3, 4, 2))
    html = own_part(page([run(GROUPS, claims)]))
    assert re.findall(r"<h3>statement (c\d)</h3>", html) == ["c5", "c4", "c3", "c2", "c1"]
    folded = html[html.index("2 further findings") :]
    assert "statement c2" in folded
    assert "statement c3" not in folded
    assert html.count('href="#run1-one-top"') == 5


def kinds_of_claims(*kinds: ClaimKind) -> tuple[Claim, ...]:
    """A claim of each kind, with a headline and the rate of a test."""
    return tuple(
        replace(claim(f"c{i}", 0.5, "one/top"), headline=f"headline c{i}.", kind=kind, verdict=Verdict.HOLDS, rate=0.01)
        for i, kind in enumerate(kinds)
    )


def test_what_can_be_acted_on_comes_first_and_theory_has_a_section_of_its_own_after():
    claims = kinds_of_claims(ClaimKind.THEORY, ClaimKind.GOOD, ClaimKind.LOOK, ClaimKind.PROBLEM, ClaimKind.PROBLEM)
    html = own_part(page([run(GROUPS, claims)]))
    findings, theory = (html.index(f"<h2>{title}</h2>") for title in ("Findings", "About the theory"))
    assert re.findall(r"<h3>headline (c\d)", html[findings:theory]) == ["c3", "c4", "c2", "c1"]
    assert re.findall(r"<h3>headline (c\d)", html[theory:]) == ["c0"]
    assert "1 further finding: 1 good" in html[findings:theory]
    assert html.index("1 further finding") < html.index("headline c1")
    assert '<a href="#run1-about-the-theory">About the theory</a>' in html
    assert "5 claims of this run are statistical tests. Each is wrong in at most 1 % of runs, and any of them " in html
    assert "and any of them in at most 5 %" in html


def test_every_mark_is_a_word_and_a_sign_beside_its_colour():
    claims = kinds_of_claims(*ClaimKind)
    undecided = replace(claims[1], verdict=Verdict.UNDECIDED)
    html = own_part(page([run(GROUPS, (*claims, undecided))]))
    pattern = r'<article class="finding (\w+).*?<span aria-hidden="true">(.)</span> ([\w ]+)</p>'
    assert set(re.findall(pattern, html, re.DOTALL)) == {
        ("problem", "▲", "Problem"),
        ("look", "●", "Look at this"),
        ("good", "✓", "Good"),
        ("theory", "◆", "About the theory"),
        ("undecided", "○", "Undecided"),
    }
    assert re.findall(r"<dt>(What .*?)</dt>", html).count("What would decide it") == 1


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_marks_can_be_read_on_the_page(palette):
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return sum(share * one for share, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for name in ("problem", "look", "good", "theory"):
        dark, bright = sorted((light(palette[name]), light(palette["paper"])))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


def test_where_all_is_theory_it_is_what_was_found():
    claims = kinds_of_claims(*[ClaimKind.THEORY] * 4)
    html = own_part(page([run(GROUPS, claims)]))
    assert "<h2>About the theory</h2>" not in html
    assert html.index("headline c2") < html.index("1 further finding") < html.index("headline c3")


def test_claims_of_earlier_versions_are_marked_by_their_verdict():
    old = [replace(claim(name, 0.5, "one/top"), verdict=verdict) for name, verdict in zip("abc", Verdict, strict=True)]
    html = own_part(page([run(GROUPS, tuple(old))]))
    assert re.findall(r"</span> ([\w ]+)</p>\s*<h3>statement (\w)", html) == [
        ("Holds", "a"),
        ("Does not hold", "b"),
        ("Undecided", "c"),
    ]
    assert "are statistical tests" not in html


def test_findings_that_rest_on_one_figure_draw_it_once():
    claims = (claim("a", 0.9, "one/top"), claim("b", 0.8, "one/top"), claim("c", 0.7, "one/other"))
    html = own_part(page([run(GROUPS, claims)]))
    findings = html[html.index("<h2>Findings</h2>") : html.index("<h2>Which?</h2>")]
    drawn = [text.count('class="canvas"') for text in re.split(r"<h3>statement", findings)]
    assert drawn == [0, 1, 0, 1]
    assert findings.count('href="#run1-one-top"') == 2


def lab_run(**settings: object) -> Run:
    """A run of something that is no model."""
    made = run(GROUPS)
    spec = Spec("lab", {"name": "A lab"}, {"name": "none", "count": 4, "of": "trials"}, settings)
    made.tree.attrs["spec"] = spec.text
    return made


def test_many_settings_are_folded_and_few_are_not():
    few, many = (
        own_part(page([lab_run(**{f"setting_{i}": i for i in range(count)})])) for count in (MOST_FACTS, MOST_FACTS + 1)
    )
    assert f"{MOST_FACTS + 1} settings</summary>" in many
    assert "settings</summary>" not in few
    assert all("<dt>setting 3</dt><dd>3</dd>" in html for html in (few, many))


def test_settings_go_by_their_names_in_the_provenance():
    views = RunView(lab_run(batch_size=4, seed=0, none={}), "run1"), RunView(lab_run(accuracy={"k": 1}), "run1")
    assert {("batch size", "4"), ("seed", "0")} <= set(views[0].provenance)
    assert ("accuracy settings", "k 1") in views[1].provenance
    assert "none" not in dict(views[0].provenance)


@pytest.mark.parametrize(
    ("evidence", "link"),
    [
        ("one/other", ["run1-one-other"]),
        ("two/number", ["run1-two-bins"]),
        ("one", ["run1-one-top"]),
        ("gone/away", []),
        ("", []),
    ],
)
def test_a_finding_links_to_its_evidence(evidence, link):
    html = own_part(page([run(GROUPS, (claim("c", 1.0, evidence),))]))
    assert re.findall(r'href="#(run1-(?:one|two|gone)-\w+)"', html) == link


def test_what_was_skipped_is_said_with_its_reason():
    html = own_part(page([run(GROUPS, skipped={"attention": f"no attention in {HOSTILE}"})]))
    assert "<b>attention</b>: no attention in &lt;script&gt;" in html


def test_the_command_and_the_accuracy_stand_on_the_page(html):
    assert "vitscope checkup &#39;a &lt; b&#39;" in html
    assert "0.10 ± 0.25" in html
    assert "1,234,567" in html
    assert "2026-01-02 03:04:05 UTC" in html


def test_tables_give_every_digit_with_unit_and_kind(html):
    texts = [
        unescape(text).lstrip("\n") for text in re.findall(r'<pre class="csv" hidden>(.*?)</pre>', html, re.DOTALL)
    ]
    assert len(texts) == 5
    rows = list(csv.DictReader(io.StringIO(texts[0])))
    assert [row["unit"] for row in rows] == ["stem", f"{HOSTILE}.attn", "blocks.0.mlp", "down", "blocks.1.attn"]
    assert [float(row["mean"]) for row in rows] == pytest.approx([0.1, 1.1, 2.1, 3.1, 4.1])
    assert {row["standard_error"] for row in rows} == {"0.25"}


def test_several_runs_have_an_index_and_ids_of_their_own():
    html = own_part(page([run(GROUPS), run(GROUPS)]))
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert re.findall(r'<li><a href="#(run\d)">', html) == ["run1", "run2"]
    assert len(ids) == len(set(ids))


def test_every_link_on_the_page_leads_somewhere(html):
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(re.findall(r'\bid="([^"]+)"', html))


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "page.html"
    assert report(run(GROUPS), target) == target
    before = target.read_bytes()

    def full_disk(source: str, destination: str) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        report([run(GROUPS), run(GROUPS)], target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run to report"):
        report([], tmp_path / "page.html")


def test_figures_for_a_paper_are_named_by_what_they_show(tmp_path):
    written = figures(run({"one": GROUPS["one"], "three": GROUPS["three"]}), tmp_path, "svg")
    assert [path.name for path in written] == [
        "one-top.svg",
        "one-other.svg",
        "three-spectrum-map.svg",
        "three-spectrum-curves.svg",
    ]
    drawn = [path.read_text() for path in written]
    assert all(one.rstrip().endswith("</svg>") for one in drawn)
    assert ">Top</text>" in drawn[0]
    assert ">Other</text>" in drawn[1]


def test_the_same_run_gives_the_same_figure_files(tmp_path):
    for format in ("svg", "pdf", "png"):
        first, second = (figures(run({"one": GROUPS["one"]}), tmp_path / f"{name}-{format}", format) for name in "ab")
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
        assert first[0].read_bytes()[:5] in (b"<?xml", b"%PDF-", b"\x89PNG\r")


def test_a_path_that_cannot_be_a_file_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a folder; give the name of a file"):
        report(run(GROUPS), tmp_path)
    with pytest.raises(UserError, match="file is a file, not a folder"):
        report(run(GROUPS), tmp_path / "file" / "deep" / "page.html")


def test_a_page_is_not_written_over_a_run_or_any_other_file_nor_to_a_url(tmp_path):
    kept = tmp_path / "run.nc"
    Run(run(GROUPS).tree).save(kept)
    before = kept.read_bytes()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty.html").touch()
    for write in (lambda path: report(run(GROUPS), path), lambda path: compare([run(GROUPS)] * 2, path)):
        with pytest.raises(
            UserError, match=r"run\.nc has the name of a run; give the page another name, such as .*\.html"
        ):
            write(kept)
        with pytest.raises(UserError, match=r"notes\.txt exists and is not a page"):
            write(tmp_path / "notes.txt")
        with pytest.raises(UserError, match=r"A page is written on this machine, but memory://page\.html is a URL"):
            write("memory://page.html")
        write(write(tmp_path / "empty.html"))  # which replaces a page
    with pytest.raises(UserError, match="Figures are written on this machine, but memory://figures is a URL"):
        figures(run(GROUPS), "memory://figures")
    assert kept.read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_figure_format_is_refused(tmp_path):
    with pytest.raises((UserError, TypeError), match="gif"):
        figures(run(GROUPS), tmp_path, "gif")


def test_what_it_gets_wrong_comes_first_with_its_pictures_and_hostile_names_as_text():
    scores = Scores(
        *(torch.tensor(one) for one in ([0, 1, 2], [0, 1, 1], [0, 0, 1])), *[torch.ones(3)] * 2, torch.ones(3).int()
    )
    shown = images(([Image.new("RGB", (8, 8), "red")] * 3, np.array([0, 1, 1])))
    found = own_part(page([run({"mistakes": mistakes(scores, shown, (HOSTILE, "b")), **GROUPS})]))
    assert "<script>alert" not in found
    assert "Misclassified: 1 of 3 images (2 classes in all)." in found
    assert len(re.findall(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+"', found)) == 1
    assert found.index("What it gets wrong</h2>") < found.index("Findings</h2>")
    right = own_part(page([run({"mistakes": mistakes(replace(scores, predicted=scores.label), shown, None)})]))
    assert "all 3 images are classified correctly" in right
