"""What pyproject.toml cannot say: three of the four floors lie beside the package they are in."""

from setuptools import find_packages, setup

FLOORS = ("ir_tools", "rewriter_rules", "passes")
found = find_packages(include=["vlmpass", *FLOORS, *(f"{each}.*" for each in ("vlmpass", *FLOORS))])

setup(packages=[each if each.startswith("vlmpass") else f"vlmpass.{each}" for each in found])
