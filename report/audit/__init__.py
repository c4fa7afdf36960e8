"""A folder of images -> what is wrong with it as a data set: duplicates, leaks, contradictions, shortcuts.

list_images -> read_images -> find_duplicates, estimate_series -> measure_leaks, measure_shortcuts -> AuditFile -> files
"""
