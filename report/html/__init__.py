"""The report as one web page: choose rows, draw pictures and charts, fill the template. Shows figures, makes none."""
