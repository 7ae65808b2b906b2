"""Mistakes one could make in the package: `mutations.py` tries them."""
