"""Makes a recipe happen: launch, supervise, train, checkpoint. May import advisor and profiles."""
