"""The microworld: coloured shapes on plain or textured backgrounds, with known ground truth for every edit."""
