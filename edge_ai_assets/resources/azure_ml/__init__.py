"""Azure Machine Learning: its workspace, and training as a job there."""
