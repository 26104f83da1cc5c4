"""What every command line needs: errors, writing, devices, memory, jobs. It knows no network."""
