"""Recipes: everything that decides a fit apart from the data and the seed."""
