"""What a run is: its spec, its provenance, and where it is stored."""
