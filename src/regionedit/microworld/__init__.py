"""The microworld: coloured shapes on plain and textured backgrounds, in which the truth about every edit is known."""
