"""Run models and compare what they compute."""
