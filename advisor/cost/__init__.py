"""What a plan costs: bytes at each moment, seconds a step."""
