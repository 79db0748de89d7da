"""The report: its sums, and the page for a browser."""
