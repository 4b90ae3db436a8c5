"""Files that shops have: CSV and Parquet, as rows, as purchases, as items. Nothing in them is read in two ways."""
