"""What is kept under data_dir: archive, models, rounds, catalogue."""
