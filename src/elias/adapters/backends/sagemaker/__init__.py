"""SageMaker training jobs as a training place: one job a segment, on spot or on-demand instances."""
