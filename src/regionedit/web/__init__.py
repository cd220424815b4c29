"""The page in a browser: see where an edit will happen, correct it, edit, compare. `page.serve` opens it."""
