"""Do two executors agree? Every backend held against torch."""
