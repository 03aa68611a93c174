"""The corpus as tables: a DuckLake under the root, its releases, and what is written from them."""

from warehouse.lake import connect

__all__ = ["connect"]
