"""How long things take, measured on real server processes. `make bench` prints the tables of RESULTS.md."""
