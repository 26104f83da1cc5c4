"""What was counted and priced, for people: console, HTML, charts."""
