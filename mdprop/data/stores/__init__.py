"""Files between the stages."""
