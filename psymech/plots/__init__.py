"""Figures on arviz_plots, for matplotlib and plotly: returned, not shown."""
