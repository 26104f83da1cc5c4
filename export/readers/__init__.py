"""Networks from elsewhere become layer graphs: a reader for each source."""
