"""The page in a browser: find a region, correct it, edit, compare. `page.serve` starts the server."""
