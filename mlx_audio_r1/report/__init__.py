"""One self-contained HTML page: tables, plots, sample replies. No MLX, and nothing of what is reported."""
