"""The page in a browser: everything is drawn, and what is to be used can be used."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorasweep.report import report
from tests.report.chromium import PROGRAMS, Chromium, chromium
from tests.report.odd import ODD, maximised
from tests.report.studies import large
from tests.study.sessions import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not any(map(shutil.which, PROGRAMS)), reason="needs chromium: apt-get install chromium"),
]
FIGURES = ("history", "curves", "parallel", "tradeoff", "slices", "slots")
TRIALS = 40


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = large(tmp_path_factory.mktemp("studies") / "alpaca", TRIALS)
    return report(folder, folder / "report.html")


def data_of(page: Path) -> dict[str, Any]:
    return dict(json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0]))


def look(browser: Chromium, page: Path, fragment: str = "", width: int = 1280, dark: bool = False) -> None:
    """Open a page; it must be drawn, complain of nothing and fit the window."""
    browser.troubles.clear()
    browser.open(page, fragment, width=width, dark=dark)
    assert browser.troubles == []
    assert browser.run("document.documentElement.dataset.drawn"), "the script did not come to its end"
    assert browser.run("document.documentElement.scrollWidth") <= width
    requests = browser.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in requests if not name.startswith("data:")] == []


def marks(browser: Chromium, figure: str, more: str = "") -> int:
    return int(browser.run(f"document.querySelectorAll('#{figure} .plot svg [data-n]{more}').length"))


def column(browser: Chromium, name: str) -> list[str]:
    """What the rows that are seen have under a heading, from top to bottom."""
    script = f"""(() => {{
      const heads = [...document.querySelectorAll("#trials thead th")].map((head) => head.title || head.textContent);
      const at = heads.indexOf({json.dumps(name)});
      return [...document.querySelectorAll("#trials tbody tr")].map((row) => row.children[at].textContent);
    }})()"""
    return [str(text) for text in browser.run(script)]


def shown(browser: Chromium) -> set[int]:
    """The trials whose rows are seen."""
    rows = "[...document.querySelectorAll('#trials tbody tr')].map((row) => Number(row.dataset.n))"
    return set(browser.run(rows))


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("\u2212", "-")) for text in texts if text]


def filtered(browser: Chromium, text: str) -> None:
    browser.click("#filter")
    browser.run("document.activeElement.select()")
    browser.type(text)


def check_figures(browser: Chromium, page: Path, width: int = 1280, dark: bool = False) -> None:
    look(browser, page, width=width, dark=dark)
    data = data_of(page)
    complete = sum(bool(trial["values"]) for trial in data["trials"])
    assert marks(browser, "history") == TRIALS
    assert marks(browser, "curves", ".line") == sum(bool(trial["curve"]) for trial in data["trials"])
    assert marks(browser, "parallel", ".line.complete") == complete
    assert marks(browser, "tradeoff") == complete
    assert marks(browser, "slices") == complete * len(data["keys"])
    assert marks(browser, "slots") == TRIALS
    assert browser.run("document.querySelectorAll('#importance .bar').length") == len(data["importances"][0])
    assert marks(browser, "headline") == complete
    for figure in FIGURES:
        box = browser.run(f"document.querySelector('#{figure} svg').getBoundingClientRect().toJSON()")
        assert box["width"] > 100
        assert box["height"] > 60
    outside = "[...document.querySelectorAll('svg [data-n]')].some((mark) => /NaN|undefined/.test(mark.outerHTML))"
    assert not browser.run(outside)
    light, dim = (
        ((21, 27, 34) if dark else (255, 255, 255)),
        browser.run("getComputedStyle(document.querySelector('.card')).backgroundColor"),
    )
    assert tuple(map(int, re.findall(r"\d+", dim))) == light


def check_sorting(browser: Chromium, page: Path) -> None:
    look(browser, page)
    assert numbers(column(browser, "rank")) == sorted(numbers(column(browser, "rank")))
    browser.click("#trials th[title='memory/peak_gib'] button")
    found = numbers(column(browser, "memory/peak_gib"))
    assert len(found) > TRIALS / 2
    assert found == sorted(found)
    browser.click("#trials th[title='memory/peak_gib'] button")
    assert numbers(column(browser, "memory/peak_gib")) == found[::-1]
    assert browser.run("document.querySelector('#trials th[title=\"memory/peak_gib\"]').ariaSort") == "descending"
    browser.click("#trials th[title='scheduler'] button")
    assert column(browser, "scheduler") == sorted(column(browser, "scheduler"))


def check_filter(browser: Chromium, page: Path) -> None:
    look(browser, page)
    trials = data_of(page)["trials"]
    wanted = [trial for trial in trials if trial["point"]["lora.r"] >= 32 and trial["point"]["scheduler"] == "cosine"]
    assert 0 < len(wanted) < TRIALS
    filtered(browser, "r>=32 scheduler=cosine")
    assert shown(browser) == {trial["number"] for trial in wanted}
    assert browser.run("document.getElementById('matches').textContent") == f"{len(wanted)} of {TRIALS}"
    assert marks(browser, "history", ":not(.off)") == len(wanted)
    filtered(browser, "dropuot=0.1")
    assert "no column dropuot" in browser.run("document.getElementById('matches').textContent")
    filtered(browser, "")
    assert len(shown(browser)) == TRIALS


def check_comparison(browser: Chromium, page: Path) -> None:
    look(browser, page)
    data = data_of(page)
    one, other = [trial for trial in data["trials"] if trial["values"]][1:3]
    for side, trial in (("a", one), ("b", other)):
        browser.click(f"#trials tr[data-n='{trial['number']}'] [data-side={side}]")
    rows = browser.run(
        "[...document.querySelectorAll('#comparison .tables > :first-child > .scroll tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    configs = data["configs"]["own"]
    first, second = configs[str(one["number"])], configs[str(other["number"])]
    assert [row[0] for row in rows] == [key for key in first if first[key] != second[key]]
    assert rows
    assert all(row[1] != row[2] for row in rows)
    assert browser.run("document.querySelector('#comparison .sidecard.a code').textContent") == one["again"]
    text = browser.run("document.getElementById('rows').textContent")
    losses, tokens = data["rows"]["losses"], data["rows"]["tokens"]
    gains = [y - x for x, y in zip(losses[str(one["number"])], losses[str(other["number"])], strict=True)]
    assert f"B is better on {sum(gain < 0 for gain in gains)} of {len(tokens)} rows" in text
    worst = max(range(len(gains)), key=lambda index: abs(gains[index]))
    assert browser.run("document.querySelector('#rows tbody th').textContent") == str(
        data["rows"]["numbers"][worst] + 1
    )


CHECKS = (check_figures, check_sorting, check_filter, check_comparison)


@pytest.mark.parametrize("check", CHECKS)
def test_the_page_works(browser: Chromium, page: Path, check: Callable[[Chromium, Path], None]) -> None:
    check(browser, page)


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (480, False), (480, True)])
def test_everything_is_drawn_on_a_phone_and_in_the_dark(browser: Chromium, page: Path, width: int, dark: bool) -> None:
    check_figures(browser, page, width, dark)


PLANTED = {
    check_figures: (
        ("item.plot.replaceChildren(drawn, stateLegend());", ""),
        ("group.append(marked(", "(marked("),
        ("const study = ", "console.warn('odd'); const study = "),
        ("    draw(item);", "    draw(item); nothing();"),
        ("main { display: grid;", "main { width: 1400px; display: grid;"),
        ("const [low, high] = scale.domain;", "const [low, high] = [NaN, NaN];"),
    ),
    check_sorting: (
        ("return isDown ? compare(y, x) : compare(x, y);", "return compare(x, y);"),
        ("const seen = sorted()", "const seen = trials"),
    ),
    check_filter: (
        ("sorted().filter((trial) => visible.has(trial.number))", "sorted()"),
        ('"<=": one <= other, ">=": one >= other', '"<=": one <= other, ">=": one > other'),
    ),
    check_comparison: (
        ("keyOf(one[key]) !== keyOf(other[key])", "keyOf(one[key]) === keyOf(other[key])"),
        ("gain: b - a", "gain: a - b"),
    ),
}


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [(check, right, wrong) for check, plants in PLANTED.items() for right, wrong in plants],
    ids=lambda item: item.__name__ if callable(item) else item[:30],
)
def test_a_planted_bug_is_found(
    browser: Chromium, page: Path, tmp_path: Path, check: Callable[[Chromium, Path], None], right: str, wrong: str
) -> None:
    text = page.read_text()
    assert right in text
    broken = tmp_path / "report.html"
    broken.write_text(text.replace(right, wrong))
    with pytest.raises(AssertionError):
        check(browser, broken)


@pytest.mark.parametrize("make", ODD)
def test_odd_studies_are_drawn_without_a_complaint(
    browser: Chromium, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    folder = make(tmp_path / "s")
    written = report(folder, folder / "report.html")
    for width in (1280, 480):
        look(browser, written, width=width)
        assert "NaN" not in browser.run("document.body.innerText")
        assert "undefined" not in browser.run("document.body.innerText")


def test_words_of_a_study_are_words_on_the_page(browser: Chromium, tmp_path: Path) -> None:
    folder = maximised(tmp_path / "s")
    look(browser, report(folder, folder / "report.html"))
    assert browser.run("window.broken") is None
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert "</script><script>" in browser.run("document.querySelector('#ends').textContent")


def test_trials_are_picked_in_figures_with_the_pointer_and_with_keys(browser: Chromium, page: Path) -> None:
    look(browser, page)
    number = data_of(page)["trials"][4]["number"]
    x, y = browser.place(f"#history .mark[data-n='{number}']")
    browser.mouse("mouseMoved", x, y)
    assert f"trial {number}" in browser.run("document.getElementById('tip').textContent")
    assert browser.run(f"document.querySelectorAll('.hot[data-n=\"{number}\"]').length") > 3
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, x, y, clickCount=1, modifiers=8)
    assert browser.run("document.querySelector('#comparison .sidecard.b select').value") == str(number)
    browser.run("document.querySelector('#history .plot').focus()")
    browser.press("ArrowRight", 39)
    browser.press("Enter", 13)
    picked = browser.run("document.querySelector('#comparison .sidecard.a select').value")
    assert picked == str(data_of(page)["trials"][5]["number"])
    assert f"a={picked}" in browser.run("location.hash")


def test_dragging_along_an_axis_filters(browser: Chromium, page: Path) -> None:
    look(browser, page)
    browser.run("document.querySelector('#parallel').scrollIntoView({block: 'center'})")
    box = browser.run("[...document.querySelectorAll('#parallel .grip')][5].getBoundingClientRect().toJSON()")
    x, top, bottom = box["x"] + box["width"] / 2, box["y"] + 0.3 * box["height"], box["y"] + 0.6 * box["height"]
    browser.mouse("mouseMoved", x, top)
    browser.mouse("mousePressed", x, top, clickCount=1)
    browser.mouse("mouseMoved", x, bottom)
    browser.mouse("mouseReleased", x, bottom, clickCount=1)
    text = browser.run("document.getElementById('filter').value")
    low, high = map(float, re.fullmatch(r"optim\.lr>=(\S+) optim\.lr<=(\S+)", text).groups())  # type: ignore[union-attr]
    wanted = [trial for trial in data_of(page)["trials"] if low <= trial["point"]["optim.lr"] <= high]
    assert 0 < len(shown(browser)) == len(wanted) < TRIALS


def test_answers_stand_beside_those_of_the_untuned_model(browser: Chromium, page: Path) -> None:
    look(browser, page, "#a=0")
    answers = data_of(page)["answers"]
    questions = "[...document.querySelectorAll('#answers article')]"
    read = ".map((card) => [...card.querySelectorAll('pre')].map((text) => text.textContent))"
    sides = browser.run(
        "[...document.querySelectorAll('#answers article:first-of-type .head')].map((h) => h.textContent)"
    )
    assert "untuned" in sides[0]
    numbers = [int(found.group(1)) for side in sides[1:] if (found := re.search(r"trial (\d+)", side))]
    assert 0 in numbers
    assert len(numbers) == len(sides) - 1
    for index, texts in enumerate(browser.run(questions + read)):
        items = [answers["untuned"][index], *(answers["given"][str(number)][index] for number in numbers)]
        assert texts == [answers["questions"][index]["prompt"], *(item["text"] or "(nothing)" for item in items)]


def test_a_page_opens_as_it_was_left(browser: Chromium, page: Path) -> None:
    look(browser, page, "#filter=r%3D32&sort=-lora.alpha&a=3&b=untuned&curves=training")
    assert set(column(browser, "lora.r")) == {"32"}
    found = numbers(column(browser, "lora.alpha"))
    assert found == sorted(found, reverse=True)
    assert browser.run("document.querySelector('#comparison .sidecard.b select').value") == "untuned"
    assert browser.run("document.querySelector('#curves [aria-pressed=true]').textContent") == "training loss"
    look(browser, page, "#filter=r%3D&sort=nothing&a=999&b=x&objective=7&odd=1")
    assert len(shown(browser)) == TRIALS


def test_a_page_that_is_watched_loads_itself_again_and_stays_as_it_was(browser: Chromium, tmp_path: Path) -> None:
    folder = large(tmp_path / "s", 40)
    written = report(folder, folder / "report.html", reload=1)
    look(browser, written, "#sort=-optim.lr")
    browser.run("window.first = true, document.querySelector('#trials .scroll').scrollTo(0, 50), scrollTo(0, 300)")
    until(lambda: browser.run("window.first === undefined && document.documentElement?.dataset.drawn"))
    assert browser.run("[scrollY, document.querySelector('#trials .scroll').scrollTop]") == [300, 50]
    assert browser.run("document.querySelector('#trials [aria-sort]').title") == "optim.lr"
    report(folder, written)
    until(lambda: browser.run("document.documentElement?.dataset.drawn && !document.documentElement.dataset.reload"))


def test_five_hundred_trials_fit(browser: Chromium, tmp_path: Path) -> None:
    folder = large(tmp_path / "s", 500)
    written = report(folder, folder / "report.html")
    assert written.stat().st_size < 10e6
    for width in (1280, 480):
        look(browser, written, width=width)
        assert len(shown(browser)) == 100
        browser.click("#more-rows button")
        assert len(shown(browser)) == 500
        assert marks(browser, "slots") == 500
    assert "of 51 trials" in browser.run("document.getElementById('rows').textContent")


def test_paper_is_white_and_has_no_buttons(browser: Chromium, page: Path) -> None:
    look(browser, page, dark=True)
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.getElementById('bar')).display") == "none"
    assert browser.run(
        "document.querySelector('#trials .scroll').scrollHeight <= document.querySelector('#trials .scroll').clientHeight + 1"
    )
