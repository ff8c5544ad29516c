"""Places where a segment can be trained."""
