"""Prism's Python tooling."""
