"""The pages name code, pages and files that exist, and the code cites pages that exist."""

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "docs/*.md", "results/*.md", "*/README.md", "ace_ray/*/README.md", "llm_service/models/*/README.md")
PAGES = sorted({page for place in PLACES for page in REPO.glob(place)})
SOURCES = sorted(
    path for room in ("ace_ray", "llm_service", "configs", "examples") for path in (REPO / room).rglob("*")
)
ANCHOR = re.compile(r"(?<![\w/.])((?:[a-z_0-9]+/)*[a-z_0-9]+\.py):([A-Za-z_][\w.]*)")
CITED = re.compile(r"(?:docs|results)/[\w-]+\.md")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")

pytestmark = pytest.mark.unit


def _defines(path: Path, name: str) -> bool:
    """Whether a module defines a function or class, or `Class.method`."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [
            n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and n.name == part
        ]
        if not found:
            return False
        body = found[0].body
    return True


def _broken_anchors(text: str) -> list[str]:
    broken = []
    for file, name in ANCHOR.findall(text):
        at = [path for path in (REPO / file, REPO / "ace_ray" / file) if path.is_file()]
        if not at or not _defines(at[0], name):
            broken.append(f"{file}:{name}")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_code_named_as_file_and_function_exists(page):
    assert _broken_anchors(page.read_text(encoding="utf-8")) == []


def test_the_method_page_anchors_the_algorithm_and_every_equation():
    text = (REPO / "docs" / "method.md").read_text(encoding="utf-8")
    algorithm = text.split("```")[1]
    assert len(ANCHOR.findall(algorithm)) >= 20
    numbers = [
        int(row.split("|")[1]) for row in text.split("## Equations")[1].splitlines() if re.match(r"\| \d+ \|", row)
    ]
    assert numbers[:12] == list(range(1, 13))


def test_a_wrong_anchor_is_noticed():
    assert _broken_anchors("see `learner/losses.py:no_such_loss` and `learner/losses.py:q_loss`") == [
        "learner/losses.py:no_such_loss"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_between_pages_lead_somewhere(page):
    targets = [
        t for t in LINK.findall(page.read_text(encoding="utf-8")) if not t.startswith(("http:", "https:", "mailto:"))
    ]
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_every_page_that_the_code_cites_exists():
    texts = {p: p.read_text(encoding="utf-8") for p in SOURCES if p.suffix in (".py", ".yaml", ".md")}
    missing = {
        f"{p.relative_to(REPO)}: {c}"
        for p, text in texts.items()
        for c in CITED.findall(text)
        if not (REPO / c).is_file()
    }
    assert missing == set()
    unshipped = {
        str(p.relative_to(REPO))
        for p, text in texts.items()
        if re.search(r"DESIGN §|\bDESIGN\.md|methods\.md|FACTS\.md", text)
    }
    assert unshipped == set(), "these cite a page that is not in the repository"
