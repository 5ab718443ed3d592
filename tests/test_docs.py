"""The pages of the documentation: links lead somewhere, programs compile, names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from neo_async import NeoClient
from neo_async.exchange import Exchange
from neo_async.market_data.instruments import Instruments
from neo_async.market_data.market import Market
from neo_async.orders import Orders
from neo_async.portfolio.live_positions import LivePositions
from neo_async.portfolio.portfolio import Portfolio

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVICES = {
    "orders": Orders,
    "portfolio.live": LivePositions,
    "portfolio": Portfolio,
    "market": Market,
    "instruments": Instruments,
}

OPENED = {"market", "feeds", "bank", "funds"}
"""Parts of an Exchange that exist once it is open."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def programs_of(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pages
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not page.parent.joinpath(link).exists()]
    assert lost == []


@pages
def test_every_program_compiles(page: Path) -> None:
    for program in programs_of(page):
        compile(program, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@pages
def test_every_method_of_a_service_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for service, name in re.findall(
        r"\bneo\.(orders|portfolio\.live|portfolio|market|instruments)\.(\w+)\(", text
    ):
        assert hasattr(SERVICES[service], name), f"neo.{service}.{name}"
    for name in re.findall(r"\bneo\.(\w+)\(", text):
        assert hasattr(NeoClient, name), f"neo.{name}"


@pages
def test_every_lever_of_the_exchange_exists(page: Path) -> None:
    exchange = Exchange()
    for path in re.findall(r"\bexchange((?:\.\w+)+)\(", page.read_text(encoding="utf-8")):
        found: object = exchange
        for name in path.removeprefix(".").split("."):
            if found is exchange and name in OPENED:
                break
            assert hasattr(found, name), f"exchange{path}"
            found = getattr(found, name)


def test_every_page_is_reached_from_the_readme() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in readme] == []
