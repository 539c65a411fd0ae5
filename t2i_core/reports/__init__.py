"""What a person reads about a run: summary, run.json, contact sheet, estimate, the page in Prefect."""
