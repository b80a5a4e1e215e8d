"""Searches that keep a latency budget, by asking an oracle fitted on the device."""

from __future__ import annotations

from hwbench.search.random_search import SearchResult, random_search, random_search_each

__all__ = ["SearchResult", "random_search", "random_search_each"]
