"""Reports for people who were not there: one HTML file, tables as CSV and LaTeX; ids replaced unless asked for."""
