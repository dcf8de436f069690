"""What a model is: from a folder, the catalog or the hub."""
