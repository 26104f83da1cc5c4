"""The Lava processes: they alone live here, for Lava's compiler executes every file beside a process's own."""
