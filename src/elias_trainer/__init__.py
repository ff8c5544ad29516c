"""The trainer: one program for this machine, a Kaggle kernel and a SageMaker container. Never imports `elias`."""
