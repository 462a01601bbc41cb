"""Operators a runtime lacks, said in operators it has."""
