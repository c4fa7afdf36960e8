"""The only home of tensorflow: data, recipes, fit, export, figures."""
