"""Published energy models as data (models/*.toml) and small functions, over one neutral input: LayerFacts."""
