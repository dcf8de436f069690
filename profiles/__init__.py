"""What a machine, a model, a data set and a run are. Imports none of the other rooms."""
