"""The table of conformance: complete, true, up to date."""

from __future__ import annotations

from .conformance import NOT_TESTED, TABLE, citations, statements, table


def test_there_are_as_many_statements_as_in_the_specification() -> None:
    assert len(statements()) == len(set(statements())) == 139


def test_each_statement_is_cited_by_a_test_or_has_a_reason() -> None:
    cited = citations()
    assert [number for number in statements() if number not in cited | NOT_TESTED] == []


def test_what_a_test_proves_needs_no_reason() -> None:
    assert sorted(citations().keys() & NOT_TESTED.keys()) == []


def test_only_statements_of_the_specification_are_cited() -> None:
    assert sorted((citations() | NOT_TESTED).keys() - set(statements())) == []


def test_the_table_is_up_to_date() -> None:
    assert TABLE.read_text(encoding="utf-8") == table(), "nox -s docs"
