"""Real MLflow and Phoenix servers, started from their packages: what is proved here is proved on registries that no one
here wrote. `make test-real` sets all of it up; an environment that is missing is a failure.
"""
