"""Reports as one HTML file that needs nothing else: what is on the page as data, its templates, its scripts."""
