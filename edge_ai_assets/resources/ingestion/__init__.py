"""How readings come to Azure: runs of Data Factory's pipeline, and files that lie in a container."""
