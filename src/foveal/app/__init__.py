"""The explorer: a local web page that shows where every head of every layer looks."""
