"""Write a model: plan, write, commit."""
