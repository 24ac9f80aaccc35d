"""Simulated specimens and tilt series: an amorphous silica network, 4D-STEM patterns and ADF images of it (abTEM)."""
