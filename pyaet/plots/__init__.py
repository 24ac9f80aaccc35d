"""Pictures of a run: functions that take arrays and return a matplotlib (in 3D a plotly) figure; none touches pyplot."""
